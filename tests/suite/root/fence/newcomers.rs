// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx that starts when the tool has given up what it does not need: with another layout, in a
//! container, and with a debug file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

use super::copy_of_unknown_release;
use super::wait_fenced;
use crate::suite::common::build::DEBIAN;
use crate::suite::common::build::binary;
use crate::suite::common::build::build_id;
use crate::suite::common::build::kept;
use crate::suite::common::client::Client;
use crate::suite::common::imitation::objcopy;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_right;
use crate::suite::common::yard::Yard;

/// The users of the tool: root, and the one that root becomes.
const USERS: [&[&str]; 2] = [&[], &["--user", "www-data"]];

/// A tool that waits for nginx in namespaces, and has given up what it does not need.
struct Fenced {
    tool: Tool,
    /// The pid of the tool.
    pid: u32,
}

impl Fenced {
    fn start(yard: &Yard, args: &[&[&str]]) -> Self {
        let mut tool = yard.tool(&[&["--wait", "--json", "-v"], &*args.concat()].concat());
        wait_fenced(&mut tool);
        let pid = tool.child();
        Self { tool, pid }
    }

    /// Returns the numbers of programs and links that the tool holds.
    fn held(&self) -> [usize; 2] {
        ["prog", "link"].map(|kind| self.tool.bpf_ids_of(self.pid, kind).len())
    }

    /// Waits until the tool holds no more than this.
    fn wait_freed(&self, expected: [usize; 2]) {
        wait_right(|| self.held(), |held| *held == expected);
    }

    /// Waits until an nginx is traced, and lets it serve one request.
    fn serve_one(&mut self, nginx: &Nginx) {
        self.tool.wait_ready(1);
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
        nginx.wait_logged(1);
    }

    fn end(self) -> Ended {
        kill("INT", self.pid);
        let ended = self.tool.wait();
        ended.assert_clean();
        ended
    }
}

/// Returns a folder that every user may read.
fn open_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    folder
}

/// Check that programs of another layout are loaded, attached and unloaded again under the fence.
#[test]
fn another_layout() {
    let folder = open_folder();
    let unknown = folder.path().join("nginx");
    copy_of_unknown_release(&unknown);
    let others = [Some(unknown), kept("source-default/objs/nginx")];
    let others: Vec<PathBuf> = others.into_iter().flatten().collect();
    for user in USERS {
        let yard = Yard::new();
        let _first = yard.nginx_of(Path::new(DEBIAN));
        let mut fenced = Fenced::start(&yard, &[user]);
        fenced.tool.wait_ready(1);
        let before = fenced.held();
        for other in &others {
            let nginx = yard.nginx_of(other);
            fenced.serve_one(&nginx);
            let [programs, links] = fenced.held();
            assert!(programs > before[0] && links > before[1]);
            nginx.quit();
            fenced.wait_freed(before);
        }
        assert_eq!(fenced.end().records().len(), others.len(), "{user:?}");
    }
}

/// Check that an nginx in a container is followed: one that runs a file of its own, which is attached
/// to under the fence, and one of the same image, whose file is known by its inode in the layer.
#[test]
fn container() {
    let folder = open_folder();
    let image = folder.path().join("nginx");
    copy_program(&binary(), &image);
    for user in USERS {
        let yard = Yard::new();
        let mut fenced = Fenced::start(&yard, &[user]);
        let before = fenced.held();
        let one = yard.container(&image);
        fenced.serve_one(&one);
        let with_one = fenced.held();
        let two = yard.container(&image);
        fenced.serve_one(&two);
        assert_eq!(fenced.held(), with_one);
        for nginx in [one, two] {
            nginx.quit();
        }
        fenced.wait_freed(before);
        assert_eq!(fenced.end().records().len(), 2, "{user:?}");
    }
}

/// Makes an nginx without symbols in a folder, and its debug file, which only root may read. Returns
/// `None` when there is no build to make them of.
fn stripped(folder: &Path) -> Option<[PathBuf; 2]> {
    let built = kept("source-static/objs/nginx")?;
    copy_program(&built, &folder.join("built"));
    objcopy(folder, &["--only-keep-debug", "built", "nginx.debug"]);
    objcopy(folder, &["--strip-all", "built", "nginx"]);
    let files = ["nginx", "nginx.debug"].map(|name| folder.join(name));
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o600)).unwrap();
    Some(files)
}

/// Check that debug files are opened under the fence: the one that the user has named, the one that the
/// binary names, and the one of its build id.
#[test]
fn debug_file() {
    let folder = open_folder();
    let Some([nginx, debug]) = stripped(folder.path()) else {
        return;
    };
    for user in USERS {
        let named = ["--debug-info", debug.to_str().unwrap()];
        assert_followed(&Yard::new(), &[user, &named], &nginx);

        let linked = folder.path().join("linked");
        copy_program(&nginx, &linked);
        objcopy(
            folder.path(),
            &["--add-gnu-debuglink=nginx.debug", "linked"],
        );
        assert_followed(&Yard::new(), &[user], &linked);

        let (yard, id) = (Yard::new(), build_id(&nginx));
        let kept_at = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
        let script = "mount -t tmpfs none /usr/lib/debug; mkdir -p \"${1%/*}\"; cp \"$0\" \"$1\"";
        let mut put = yard.command("sh");
        let put = put.args(["-ec", script]).arg(&debug).arg(kept_at).status();
        assert!(put.unwrap().success());
        assert_followed(&yard, &[user], &nginx);
    }
}

/// Asserts that an nginx that starts when the tool has been fenced is followed.
fn assert_followed(yard: &Yard, args: &[&[&str]], program: &Path) {
    let mut fenced = Fenced::start(yard, args);
    let nginx = yard.nginx_of(program);
    fenced.serve_one(&nginx);
    nginx.quit();
    assert_eq!(fenced.end().records().len(), 1, "{args:?}");
}
