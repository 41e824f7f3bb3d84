// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminal while the screen is on it. It is given back on drop, before the message of a panic of any thread, and
//! when that is asked. No signal handler is installed here: the caller has those.

use std::io;
use std::io::BufWriter;
use std::io::Stdout;
use std::io::Write;
use std::panic;
use std::sync::Once;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ratatui::Frame;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Hide;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::EnterAlternateScreen;
use ratatui::crossterm::terminal::LeaveAlternateScreen;
use ratatui::crossterm::terminal::disable_raw_mode;
use ratatui::crossterm::terminal::enable_raw_mode;

/// The bytes of a frame that are written at once.
const FRAME_BYTES: usize = 64 << 10;

/// How long it takes at most until all threads have stopped.
const STOPPING: Duration = Duration::from_millis(50);

/// Whether the terminal is set up for the screen.
static IS_SET_UP: AtomicBool = AtomicBool::new(false);

/// What a frame is written to. When the terminal was given back, by another thread that panics, the rest of the frame goes
/// nowhere: it would be written over the message.
struct Output(Stdout);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /* Whoever gives the terminal back writes to stdout after that, and waits for this lock. */
        let mut stdout = self.0.lock();
        if IS_SET_UP.load(Ordering::SeqCst) {
            stdout.write_all(bytes)?;
            stdout.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, set up for the screen.
pub struct Terminal {
    terminal: ratatui::Terminal<CrosstermBackend<BufWriter<Output>>>,
}

impl Terminal {
    /// Sets the terminal up.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn enter() -> io::Result<Self> {
        restore_before_panics();
        set_up()?;
        let output = BufWriter::with_capacity(FRAME_BYTES, Output(io::stdout()));
        match ratatui::Terminal::new(CrosstermBackend::new(output)) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Checks that the terminal is still set up.
    ///
    /// # Errors
    ///
    /// Fails when it was given back, since a thread panicked.
    pub fn check(&self) -> io::Result<()> {
        if IS_SET_UP.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(io::Error::other("the terminal was given back"))
    }

    /// Draws a frame.
    ///
    /// # Errors
    ///
    /// Fails when the terminal has gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_| ())
    }

    /// Sets the terminal up anew, whatever another program has made of it, and makes the next frame draw all of the
    /// screen.
    ///
    /// # Errors
    ///
    /// Fails when the terminal has gone.
    pub fn renew(&mut self) -> io::Result<()> {
        restore();
        set_up()?;
        self.terminal.clear()
    }

    /// Gives the terminal back, stops the processes of the job, and sets the terminal up again when they are continued.
    /// This belongs into the main thread: there the signal has arrived when it was sent.
    ///
    /// # Errors
    ///
    /// Fails when the terminal has gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        stop()?;
        /* Another thread than the first one goes on for a moment after that. */
        thread::sleep(STOPPING);
        self.renew()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Stops all processes of the job, as a terminal does: the shell takes it for stopped when all are.
#[cfg(unix)]
fn stop() -> io::Result<()> {
    use rustix::process::Signal;
    use rustix::process::kill_current_process_group;
    use signal_hook::consts::SIGTSTP;
    /* A process that has given up to signal others can still stop itself. */
    kill_current_process_group(Signal::TSTP).or_else(|_| signal_hook::low_level::raise(SIGTSTP))
}

/// There are no jobs to stop.
#[cfg(not(unix))]
fn stop() -> io::Result<()> {
    Ok(())
}

/// Sets the terminal up.
fn set_up() -> io::Result<()> {
    enable_raw_mode()?;
    IS_SET_UP.store(true, Ordering::SeqCst);
    let done = execute!(io::stdout(), EnterAlternateScreen, Hide);
    if done.is_err() {
        restore();
    }
    done
}

/// Gives the terminal back as it was, if it is set up for the screen. A caller that ends the process otherwise than by
/// returning calls this before.
pub fn restore() {
    if IS_SET_UP.swap(false, Ordering::SeqCst) {
        /* Nothing is left to be done about a terminal that has gone. */
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Waits for input, but no longer than this.
///
/// # Errors
///
/// Fails when the terminal has gone: crossterm reads its end again and again, and never returns.
#[cfg(unix)]
pub fn wait_for_input(most: Duration) -> io::Result<()> {
    use rustix::event::PollFd;
    use rustix::event::PollFlags;
    use rustix::event::Timespec;
    use rustix::event::poll;
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
    let most = Timespec {
        tv_sec: most.as_secs().cast_signed(),
        tv_nsec: most.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&most)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(io::Error::other("the terminal has gone"));
    }
    Ok(())
}

/// Waits for input, but no longer than this.
#[cfg(not(unix))]
pub fn wait_for_input(most: Duration) -> io::Result<()> {
    event::poll(most).map(|_| ())
}

/// Prepares the reading of keys. A process that will give up to open files and sockets calls this before.
///
/// # Errors
///
/// Fails when there is no terminal to read keys from.
pub fn prepare() -> io::Result<()> {
    event::poll(Duration::ZERO).map(|_| ())
}

/// Makes a panic of any thread give the terminal back before it writes its message, which would be lost otherwise.
fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
