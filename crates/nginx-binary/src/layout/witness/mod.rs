// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares a layout with the code of a binary. Each member whose offset differs between releases has a
//! witness: a function that accesses it in every release, as nginx's sources show. The layout's offset has
//! to be among those that the function accesses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::build::directive;
use crate::code::callbacks;
use crate::code::dataflow;
use crate::code::dataflow::FunctionEffects;
use crate::code::dataflow::MemberByte;
use crate::elf::Elf;
use crate::layout::Layout;
use crate::layout::variables;
use crate::layout::variables::Variable;
use functions::BESIDE;
use functions::BITS;
use functions::DIRECTIVE;
use functions::Directives;
use functions::EMBEDDED;
use functions::MemberPath;
use functions::POINTERS;
use functions::REQUEST;
use functions::SHARED_CALLBACKS;
use functions::WITNESSES;
use functions::Witness;

pub mod constant;
pub mod functions;

/// The verdict of a witness on the offset of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The code accesses the struct at this offset.
    Agrees,
    /// The code accesses the struct at other offsets only.
    Differs,
    /// The witness is not in this binary, or the analysis could not follow it.
    Unknown,
    /// The member is not read in this binary, since the module that it belongs to is not built in.
    Unread,
}

/// The question whether a witness accesses a member at an offset.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The index of the witness in [`WITNESSES`].
    pub number: usize,
    /// The symbol without which the member is not read. `None` when it always is.
    pub module: Option<&'static str>,
    /// The offset in bytes. `None` when the layout lacks the member, although a build that has the witness has
    /// it.
    pub offset: Option<i64>,
}

/// The verdicts of all witnesses on one layout.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The members whose witness agrees.
    pub agree: Vec<MemberPath>,
    /// The members whose witness differs.
    pub differ: Vec<MemberPath>,
    /// The members whose witness is missing.
    pub unknown: Vec<MemberPath>,
    /// The members that are not read in this binary.
    pub unread: Vec<MemberPath>,
}

impl Agreement {
    /// Collects the verdicts on a layout whose members have these `offsets`, one for each witness; `answer`
    /// gives the verdict of one witness.
    pub fn collect(offsets: &[Option<i64>], answer: &mut dyn FnMut(Question) -> Verdict) -> Self {
        let mut agreement = Self::default();
        for (number, ((witness, place), offset)) in WITNESSES.iter().zip(offsets).enumerate() {
            if offset.is_none() && !witness.comes_with_member() {
                continue;
            }
            let question = Question {
                number,
                module: witness.module(),
                offset: *offset,
            };
            let list = match answer(question) {
                Verdict::Agrees => &mut agreement.agree,
                Verdict::Differs => &mut agreement.differ,
                Verdict::Unknown => &mut agreement.unknown,
                Verdict::Unread => &mut agreement.unread,
            };
            list.push(place);
        }
        agreement
    }

    /// Returns the number of members that witnesses were asked for: those that are read in this binary.
    pub fn asked(&self) -> usize {
        self.agree.len() + self.differ.len() + self.unknown.len()
    }

    /// Returns whether there are witnesses and all of them agree.
    pub fn is_full(&self) -> bool {
        !self.agree.is_empty() && self.agree.len() == self.asked()
    }

    /// Returns how many members the code has elsewhere, and the first of them, for messages. `None` when it has
    /// none elsewhere.
    pub fn contradiction(&self) -> Option<String> {
        let first = self.differ.first()?;
        let (differ, asked) = (self.differ.len(), self.asked());
        Some(format!(
            "{differ} of {asked} members elsewhere ({} first)",
            path_name(first)
        ))
    }

    /// Returns whether the offset of a member is confirmed by the code, or the member is not read.
    pub fn settles(&self, name: &str, member: &str) -> bool {
        let mut agree = self.agree.iter();
        agree.any(|place| place.contains(&(name, member))) || self.is_unread(name, member)
    }

    /// Returns whether a member is not read in this binary.
    pub fn is_unread(&self, name: &str, member: &str) -> bool {
        let mut unread = self.unread.iter();
        unread.any(|place| place.contains(&(name, member)))
    }
}

/// The witnesses in a binary.
pub struct Witnesses<'a> {
    elf: &'a Elf<'a>,
    variables: HashMap<String, Variable>,
    /// The effects of functions. Most layouts have `POINTERS` at the same offsets.
    analyzed: RefCell<HashMap<Analysis, Rc<FunctionEffects>>>,
    /// The functions that set the content handlers, which depend on no layout.
    setters: RefCell<HashMap<Directives, Option<u64>>>,
}

/// All that the effects of a function depend on: its address, the struct that its first argument points to,
/// and the offsets of `POINTERS`.
type Analysis = (u64, &'static str, PointerOffsets);

/// The offset of each of `POINTERS` in a layout.
type PointerOffsets = [Option<i64>; POINTERS.len()];

impl<'a> Witnesses<'a> {
    /// Finds the witnesses of a binary.
    pub fn new(elf: &'a Elf<'a>) -> Self {
        Self {
            elf,
            variables: variables::read_variables(elf),
            analyzed: RefCell::default(),
            setters: RefCell::default(),
        }
    }

    /// Compares a layout with the code of the binary.
    pub fn examine(&self, layout: &Layout) -> Agreement {
        let places: PointerOffsets = std::array::from_fn(|n| offset_in(layout, &[POINTERS[n].0]));
        Agreement::collect(&offsets(layout), &mut |question| {
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

    /// Returns whether a function whose first argument is a request accesses less than a pointer's bytes at an
    /// offset in a request: bits that begin there.
    pub fn accesses_part(&self, layout: &Layout, function: &str, offset: i64) -> bool {
        let places: PointerOffsets = std::array::from_fn(|n| offset_in(layout, &[POINTERS[n].0]));
        let function = self.elf.function(function).ok();
        function.is_some_and(|function| {
            let effects = self.effects_of(&places, function.address, REQUEST);
            effects.narrow.contains(&(REQUEST, offset))
        })
    }

    /// Returns whether a witness accesses a member at an offset. `None` when the witness is missing.
    fn touches(&self, places: &PointerOffsets, question: Question) -> Option<bool> {
        let (witness, place) = WITNESSES[question.number];
        let (name, _) = place[0];
        let effects_of = |address, argument| self.effects_of(places, address, argument);
        let effects = match witness {
            Witness::Data(name) => {
                let data = self.variables.get(name)?.data.cast_signed();
                return Some(question.offset == Some(data));
            }
            Witness::Handler(name) | Witness::HandlerOfModule(_, name) => {
                effects_of(self.variables.get(name)?.handler, REQUEST)
            }
            Witness::Exported(name, argument) | Witness::OfModule(_, name, argument) => {
                effects_of(self.elf.function(name).ok()?.address, argument)
            }
            Witness::EitherOfModule(_, names, argument) => {
                let functions = names.map(|name| self.elf.function(name).ok());
                let functions = functions.into_iter().flatten();
                let all: Vec<Rc<FunctionEffects>> = functions
                    .map(|function| effects_of(function.address, argument))
                    .collect();
                FunctionEffects::union(&all)?
            }
            Witness::Content(directives) => self
                .handler(directives, places)
                .filter(|effects| effects.has(name))?,
            Witness::Callbacks(directives) => {
                let handler = self.handler(directives, places)?;
                let callbacks = self.functions(&handler);
                let all: Vec<Rc<FunctionEffects>> = callbacks
                    .map(|callback| effects_of(callback, REQUEST))
                    .collect();
                FunctionEffects::union(&all).filter(|effects| effects.has(name))?
            }
        };
        let mut beside = BESIDE.iter();
        let beside = beside.find(|(member, _)| *member == place[0]);
        let distance = beside.map_or(0, |(_, distance)| *distance);
        let shows = |offset| {
            let member = (name, offset + distance);
            match place[0] {
                bits if BITS.contains(&bits) => effects.narrow.contains(&member),
                embedded if EMBEDDED.contains(&embedded) => {
                    effects.touched.contains(&member) || effects.located.contains(&member)
                }
                _ => effects.touched.contains(&member),
            }
        };
        Some(question.offset.is_some_and(shows))
    }

    /// Returns the effects of the content handler of the first of these directives that is built in. `None`
    /// when none is.
    fn handler(
        &self,
        directives: Directives,
        places: &PointerOffsets,
    ) -> Option<Rc<FunctionEffects>> {
        let set = self.effects_of(places, self.setter(directives)?, DIRECTIVE);
        let all: Vec<Rc<FunctionEffects>> = self
            .functions(&set)
            .map(|handler| self.effects_of(places, handler, REQUEST))
            .collect();
        FunctionEffects::union(&all)
    }

    /// Returns the function that sets the content handler of the first of these directives that is built in.
    /// `None` when none is.
    fn setter(&self, directives: Directives) -> Option<u64> {
        let find = || {
            let mut named = directives.iter();
            named.find_map(|(module, name)| directive::find_setter(self.elf, module, name))
        };
        let mut setters = self.setters.borrow_mut();
        *setters.entry(directives).or_insert_with(find)
    }

    /// Returns the effects of a function whose first argument points to the struct `argument`.
    fn effects_of(
        &self,
        places: &PointerOffsets,
        address: u64,
        argument: &'static str,
    ) -> Rc<FunctionEffects> {
        let key = (address, argument, *places);
        if let Some(known) = self.analyzed.borrow().get(&key) {
            return Rc::clone(known);
        }
        let follow = |(name, at): MemberByte| {
            let mut pointers = POINTERS.iter().zip(places);
            let is_member = |((member, _), place): &(&((&str, &str), &str), &Option<i64>)| {
                member.0 == name && **place == Some(at)
            };
            let ((_, to), _) = pointers.find(is_member)?;
            Some(*to)
        };
        let code_from = |address| self.elf.code_from(address);
        let machine = self.elf.machine();
        let effects = Rc::new(dataflow::analyze(
            machine, &code_from, address, argument, &follow,
        ));
        self.analyzed.borrow_mut().insert(key, Rc::clone(&effects));
        effects
    }

    /// Returns the functions whose addresses a function computes or loads, without those that several handlers share.
    fn functions(&self, effects: &FunctionEffects) -> impl Iterator<Item = u64> {
        let shared = SHARED_CALLBACKS.map(|name| Some(self.elf.symbol(name)?.address));
        callbacks::named_by(self.elf, effects)
            .into_iter()
            .filter(move |address| !shared.contains(&Some(*address)))
    }
}

/// Returns the offset of each witness's member in bytes. `None` where the layout lacks it.
pub fn offsets(layout: &Layout) -> Vec<Option<i64>> {
    let witnesses = WITNESSES.iter();
    witnesses
        .map(|(_, place)| offset_in(layout, place))
        .collect()
}

/// Returns the offset of a member in bytes. `None` when the layout lacks it.
pub fn offset_in(layout: &Layout, place: &[(&str, &str)]) -> Option<i64> {
    let offsets = place
        .iter()
        .map(|(name, member)| layout.offset(name, member));
    offsets.map(|offset| offset.map(i64::from)).sum()
}

/// Returns the name of a member as in C: `ngx_http_request_s.headers_in.host`.
pub fn path_name(place: MemberPath) -> String {
    let members: Vec<&str> = place.iter().map(|(_, member)| *member).collect();
    format!("{}.{}", place[0].0, members.join("."))
}

/// Returns the names of several members, separated by commas.
pub fn path_names(places: &[MemberPath]) -> String {
    let names: Vec<String> = places.iter().map(|place| path_name(place)).collect();
    names.join(", ")
}

#[cfg(test)]
mod modules;

#[cfg(test)]
mod tests {
    use super::POINTERS;
    use super::WITNESSES;
    use super::Witnesses;
    use super::offset_in;
    use crate::built;
    use crate::elf::Elf;
    use crate::layout::tests::COMPAT;
    use crate::layout::tests::build;
    use crate::layout::tests::only;

    /// Check that the member of every witness is in the layouts.
    #[test]
    fn known() {
        let layout = only(&build("1.25.2", COMPAT)).unwrap();
        for (witness, place) in WITNESSES {
            assert!(offset_in(&layout, place).is_some(), "{witness:?}");
        }
    }
    /// Check that the effects of one function are kept apart by what its first argument points to.
    #[test]
    fn arguments() {
        let source = "long f(long *p) { return p[2]; } int main(int n, char **v) { return f((long *)v) != n; }";
        let (_folder, file) = built::compiled(source, "-O1 -fPIE -pie -rdynamic");
        let image = built::image(&file);
        let elf = Elf::parse(&image).unwrap();
        let address = elf.symbol("f").unwrap().address;
        let witnesses = Witnesses::new(&elf);
        for argument in ["one", "other", "one"] {
            let effects = witnesses.effects_of(&[None; POINTERS.len()], address, argument);
            assert!(effects.touched.iter().eq([&(argument, 16)]), "{argument}");
        }
    }
}
