// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a layout is that of a binary: its own code is the witness. Each member that moves between
//! releases has a function that is known, from nginx's sources, to touch it in every release; there
//! the layout's offset must be among those that the code uses.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

use crate::build::directive;
use crate::code::dataflow;
use crate::code::dataflow::Reads;
use crate::code::dataflow::Touched;
use crate::elf::Elf;
use crate::layout::Layout;
use crate::layout::variables;
use crate::layout::variables::Variable;
use functions::BITS;
use functions::DIRECTIVE;
use functions::Directives;
use functions::POINTERS;
use functions::Place;
use functions::REQUEST;
use functions::SHARED_CALLBACKS;
use functions::WITNESSES;
use functions::Witness;

pub mod functions;

/// What a witness says of a layout's place for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The code touches it there.
    Agrees,
    /// The code touches it elsewhere.
    Differs,
    /// The witness is not in this binary, or was not understood.
    Unknown,
    /// The member is not read, since what it is for is not built in.
    Unread,
}

/// What a witness is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which witness.
    pub number: usize,
    /// The symbol without which no one reads the member.
    pub module: Option<&'static str>,
    /// Where the layout has it. `None` when it has none, though a build that has the witness has one.
    pub offset: Option<i64>,
}

/// How well a layout fits a binary.
#[derive(Debug, Default)]
pub struct Fit {
    /// Members that the code touches where the layout has them.
    pub agree: Vec<Place>,
    /// Members that the code does not touch where the layout has them.
    pub differ: Vec<Place>,
    /// Members whose witness is not in this binary.
    pub unknown: Vec<Place>,
    /// Members that nothing reads in this binary.
    pub unread: Vec<Place>,
}

impl Fit {
    /// Asks each witness for a layout's members.
    pub fn ask(layout: &Layout, answer: &mut dyn FnMut(Question) -> Verdict) -> Self {
        let mut fit = Self::default();
        for (number, (witness, place)) in WITNESSES.iter().enumerate() {
            let offset = offset(layout, place);
            if offset.is_none() && !witness.comes_with_member() {
                continue;
            }
            let question = Question {
                number,
                module: witness.module(),
                offset,
            };
            let list = match answer(question) {
                Verdict::Agrees => &mut fit.agree,
                Verdict::Differs => &mut fit.differ,
                Verdict::Unknown => &mut fit.unknown,
                Verdict::Unread => &mut fit.unread,
            };
            list.push(place);
        }
        fit
    }

    /// How many members were asked for.
    pub fn asked(&self) -> usize {
        self.agree.len() + self.differ.len() + self.unknown.len()
    }

    /// Whether every witness is there and agrees.
    pub fn is_full(&self) -> bool {
        !self.agree.is_empty() && self.agree.len() == self.asked()
    }

    /// Whether a member is where the code has it, or is not read at all.
    pub fn settles(&self, name: &str, member: &str) -> bool {
        let mut settled = self.agree.iter().chain(&self.unread);
        settled.any(|place| place.contains(&(name, member)))
    }
}

/// A binary's witnesses.
pub struct Witnesses<'a> {
    /// The binary.
    elf: &'a Elf<'a>,
    /// Its variables.
    variables: HashMap<String, Variable>,
    /// What its functions do: by address, and where the layout that was asked for has `POINTERS`. All
    /// else in a layout makes no difference to that, and most layouts have them at the same places.
    walked: RefCell<HashMap<(u64, Places), Rc<Reads>>>,
}

/// Where a layout has each of `POINTERS`.
type Places = [Option<i64>; POINTERS.len()];

impl<'a> Witnesses<'a> {
    /// Finds them.
    pub fn of(elf: &'a Elf<'a>) -> Self {
        Self {
            elf,
            variables: variables::find(elf),
            walked: RefCell::default(),
        }
    }

    /// Asks them all.
    pub fn ask(&self, layout: &Layout) -> Fit {
        let places: Places = std::array::from_fn(|n| offset(layout, &[POINTERS[n].0]));
        Fit::ask(layout, &mut |question| {
            let has = |symbol| self.elf.symbol(symbol).is_some();
            if question.module.is_some_and(|module| !has(module)) {
                return Verdict::Unread;
            }
            match self.touches(&places, question) {
                Some(true) => Verdict::Agrees,
                Some(false) => Verdict::Differs,
                None if question.offset.is_none() => Verdict::Unread,
                None => Verdict::Unknown,
            }
        })
    }

    /// Whether a witness touches a member. `None` when it is not there.
    fn touches(&self, places: &Places, question: Question) -> Option<bool> {
        let (witness, place) = WITNESSES[question.number];
        let (name, _) = place[0];
        let walk = |address, argument| self.walk(places, address, argument);
        let reads = match witness {
            Witness::Data(name) => {
                let data = self.variables.get(name)?.data.cast_signed();
                return Some(question.offset == Some(data));
            }
            Witness::Handler(name) => walk(self.variables.get(name)?.handler, REQUEST),
            Witness::Exported(name, argument) | Witness::OfModule(_, name, argument) => {
                walk(self.elf.function(name).ok()?.address, argument)
            }
            Witness::Content(directives) => self
                .handler(directives, places)
                .filter(|reads| reads.has(name))?,
            Witness::Callbacks(directives) => {
                let handler = self.handler(directives, places)?;
                let callbacks = self.functions(&handler);
                let all: Vec<Rc<Reads>> =
                    callbacks.map(|callback| walk(callback, REQUEST)).collect();
                Reads::of_all(&all).filter(|reads| reads.has(name))?
            }
        };
        let touched = if BITS.contains(&place[0]) {
            &reads.narrow
        } else {
            &reads.touched
        };
        let offset = question.offset;
        Some(offset.is_some_and(|offset| touched.contains(&(name, offset))))
    }

    /// What the content handler of the first of these directives does. `None` when none is built in.
    fn handler(&self, directives: Directives, places: &Places) -> Option<Rc<Reads>> {
        let setter = directives
            .iter()
            .find_map(|(module, name)| directive::setter(self.elf, module, name))?;
        let set = self.walk(places, setter, DIRECTIVE);
        let all: Vec<Rc<Reads>> = self
            .functions(&set)
            .map(|handler| self.walk(places, handler, REQUEST))
            .collect();
        Reads::of_all(&all)
    }

    /// What a function does.
    fn walk(&self, places: &Places, address: u64, argument: &'static str) -> Rc<Reads> {
        let key = (address, *places);
        if let Some(known) = self.walked.borrow().get(&key) {
            return Rc::clone(known);
        }
        let follow = |(name, at): Touched| {
            let mut pointers = POINTERS.iter().zip(places);
            let is_it = |((member, _), place): &(&((&str, &str), &str), &Option<i64>)| {
                member.0 == name && **place == Some(at)
            };
            let ((_, to), _) = pointers.find(is_it)?;
            Some(*to)
        };
        let code_from = |address| self.elf.code_from(address);
        let machine = self.elf.machine();
        let reads = Rc::new(dataflow::of(
            machine, &code_from, address, argument, &follow,
        ));
        self.walked.borrow_mut().insert(key, Rc::clone(&reads));
        reads
    }

    /// The functions whose addresses a function computes.
    fn functions(&self, reads: &Reads) -> impl Iterator<Item = u64> {
        let constants = reads.constants.iter().filter(|_| self.elf.is_fixed());
        let addresses: BTreeSet<u64> = reads.addresses.iter().chain(constants).copied().collect();
        let shared = SHARED_CALLBACKS.map(|name| Some(self.elf.symbol(name)?.address));
        addresses.into_iter().filter(move |address| {
            !shared.contains(&Some(*address)) && self.elf.code_from(*address).is_some()
        })
    }
}

/// Where a layout has a member. `None` when this build has none.
pub fn offset(layout: &Layout, place: &[(&str, &str)]) -> Option<i64> {
    let offsets = place
        .iter()
        .map(|(name, member)| layout.structs.get(*name)?.get(*member).copied());
    offsets.map(|offset| offset.map(i64::from)).sum()
}

/// Members that are at the same place in all releases, and in all forks that were looked at (but
/// for what threads put before those of `ngx_event_pipe_s`).
pub const CONSTANT: [&str; 64] = [
    "ngx_array_t.elts",
    "ngx_array_t.nelts",
    "ngx_array_t.size",
    "ngx_buf_s.pos",
    "ngx_buf_s.start",
    "ngx_chain_s.buf",
    "ngx_connection_s.data",
    "ngx_connection_s.fd",
    "ngx_connection_s.listening",
    "ngx_connection_s.read",
    "ngx_connection_s.recv",
    "ngx_connection_s.type",
    "ngx_connection_s.write",
    "ngx_event_pipe_s.downstream",
    "ngx_event_pipe_s.length",
    "ngx_event_pipe_s.preread_size",
    "ngx_event_pipe_s.read",
    "ngx_event_pipe_s.read_length",
    "ngx_event_pipe_s.temp_file",
    "ngx_event_pipe_s.upstream",
    "ngx_event_s.write",
    "ngx_file_s.fd",
    "ngx_http_connection_t.ssl_servername",
    "ngx_http_headers_in_t.headers",
    "ngx_http_log_ctx_s.current_request",
    "ngx_http_request_body_t.buf",
    "ngx_http_request_body_t.bufs",
    "ngx_http_request_body_t.rest",
    "ngx_http_request_body_t.temp_file",
    "ngx_http_request_s.read_event_handler",
    "ngx_http_request_s.signature",
    "ngx_http_upstream_s.peer",
    "ngx_http_request_s.write_event_handler",
    "ngx_http_v2_node_s.id",
    "ngx_http_v2_out_frame_s.next",
    "ngx_http_v2_out_frame_s.stream",
    "ngx_http_v2_state_t.sid",
    "ngx_http_v2_stream_s.connection",
    "ngx_http_v2_stream_s.node",
    "ngx_http_v2_stream_s.request",
    "ngx_http_v2_connection_s.connection",
    "ngx_queue_s.next",
    "ngx_quic_connection_s.send_ctx",
    "ngx_quic_frame_s.queue",
    "ngx_quic_frame_s.type",
    "ngx_quic_send_ctx_s.send_ack",
    "ngx_quic_send_ctx_s.sending",
    "ngx_quic_socket_s.quic",
    "ngx_quic_stream_frame_t.fin",
    "ngx_quic_stream_frame_t.offset",
    "ngx_quic_stream_frame_t.stream_id",
    "ngx_quic_stream_s.id",
    "ngx_quic_stream_s.parent",
    "ngx_str_t.data",
    "ngx_str_t.len",
    "ngx_peer_connection_s.connection",
    "ngx_list_part_s.elts",
    "ngx_list_part_s.nelts",
    "ngx_list_part_s.next",
    "ngx_list_t.part",
    "ngx_list_t.size",
    "ngx_table_elt_s.hash",
    "ngx_table_elt_s.key",
    "ngx_table_elt_s.value",
];

/// A member of which no function that can be found is a witness: it is read since it is where it is
/// (`sites::QUIC_FRAMES`).
pub const WITHOUT_WITNESS: [&str; 1] = ["ngx_quic_frame_s.u"];

/// What each witness is asked for.
#[cfg(test)]
pub fn places() -> impl Iterator<Item = Place> {
    WITNESSES.iter().map(|(_, place)| *place)
}

/// As in C.
pub fn name(place: Place) -> String {
    let members: Vec<&str> = place.iter().map(|(_, member)| *member).collect();
    format!("{}.{}", place[0].0, members.join("."))
}

#[cfg(test)]
mod tests {
    use super::WITNESSES;
    use super::offset;
    use crate::layout::built_in;
    use crate::layout::tests::COMPAT;
    use crate::layout::tests::build;

    /// Check that every place that a witness is asked for is in the layouts.
    #[test]
    fn known() {
        let layout = built_in(&build("1.25.2", COMPAT)).unwrap().unwrap();
        for (witness, place) in WITNESSES {
            assert!(offset(&layout, place).is_some(), "{witness:?}");
        }
    }
}
