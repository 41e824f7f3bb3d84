// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is compared in a row of the table, and what came of it.

use std::any::Any;
use std::fmt;

use crate::common::nginx::Nginx;
use crate::common::tool::PROGRAM;
use crate::cpu::Cost;
use crate::interval::Interval;
use crate::interval::median;
use crate::load::Load;
use crate::pinning::Pinned;
use crate::rounds::Plan;
use crate::tracing::build_before;
use crate::tracing::of_build;

/// What is on while nginx is measured. It ends when this is dropped.
type Guard = Box<dyn Any>;

/// What is on.
enum On<'a> {
    /// The tool. The function starts the build with this path.
    Tool(Box<dyn Fn(&str) -> Guard + 'a>),
    /// Something else.
    Other(Box<dyn Fn() -> Guard + 'a>),
}

/// A row before it is measured.
pub struct Row<'a> {
    pub name: String,
    nginx: &'a Nginx,
    load: Load,
    on: On<'a>,
    /// The load while it is on, if that is another one.
    load_on: Option<Load>,
    /// Whether the worker has a CPU of its own, and the processes that get the other one with the load generator and
    /// the tool.
    pinned: Option<Vec<u32>>,
    /// Whether it is one of the most important rows.
    pub is_quick: bool,
}

impl<'a> Row<'a> {
    /// Returns a row of the tool with these options.
    pub fn tool(name: &str, nginx: &'a Nginx, load: Load, args: &'a [&'a str]) -> Self {
        Self::started(name, nginx, load, |program| of_build(program, nginx, args))
    }

    /// Returns a row of the tool, started in another way: by a function of its path.
    pub fn started<T: Any>(
        name: &str,
        nginx: &'a Nginx,
        load: Load,
        start: impl Fn(&str) -> T + 'a,
    ) -> Self {
        let on = On::Tool(Box::new(move |program| Box::new(start(program))));
        Self::new(name, nginx, load, on)
    }

    /// Returns a row of something else than the tool.
    pub fn other<T: Any>(
        name: &str,
        nginx: &'a Nginx,
        load: Load,
        start: impl Fn() -> T + 'a,
    ) -> Self {
        let on = On::Other(Box::new(move || Box::new(start())));
        Self::new(name, nginx, load, on)
    }

    fn new(name: &str, nginx: &'a Nginx, load: Load, on: On<'a>) -> Self {
        Self {
            name: name.to_owned(),
            nginx,
            load,
            on,
            load_on: None,
            pinned: None,
            is_quick: false,
        }
    }

    /// Uses another load while it is on.
    pub fn with_load(mut self, load: Load) -> Self {
        self.load_on = Some(load);
        self
    }

    /// Lets the worker have a CPU of its own, and these processes the other one.
    pub fn pinned(mut self, others: Vec<u32>) -> Self {
        self.pinned = Some(others);
        self
    }

    /// Makes it one of the most important rows.
    pub fn quick(mut self) -> Self {
        self.is_quick = true;
        self
    }

    /// Measures it. Fails with the reason why it can't be.
    pub fn measure(&self, plan: &Plan) -> Result<Measured, String> {
        let _pinned = match &self.pinned {
            Some(others) => {
                let pinned = Pinned::apart(self.nginx.workers()[0], others);
                Some(pinned.ok_or("there is only one CPU")?)
            }
            None => None,
        };
        let before = match &self.on {
            On::Tool(_) => build_before(),
            On::Other(_) => None,
        };
        let programs = [None, Some(PROGRAM), before.as_deref()];
        let arms = if before.is_some() { 3 } else { 2 };
        let samples = plan.alternate(
            arms,
            |arm| self.sample(plan, programs[arm]),
            |cost| cost.worker_ns,
        );
        Ok(Measured::of(&self.name, plan, &samples))
    }

    /// Measures with nothing on, or with this build of the tool, or with something else.
    fn sample(&self, plan: &Plan, program: Option<&str>) -> Cost {
        let guard = program.map(|program| self.on.start(program));
        let of_row = self.load_on.as_ref().filter(|_| program.is_some());
        let load = of_row.unwrap_or(&self.load);
        let mut ready = load.ready();
        let worker = self.nginx.workers()[0];
        let cost = Cost::of(worker, || load.send(&mut ready, plan.seconds));
        load.end(ready);
        drop(guard);
        cost
    }
}

impl On<'_> {
    fn start(&self, program: &str) -> Guard {
        match self {
            Self::Tool(start) => start(program),
            Self::Other(start) => start(),
        }
    }
}

/// How one of both clocks is affected.
pub struct Effect {
    /// The median of a request with nothing on, in µs.
    pub off_us: f64,
    /// How many times as much it is.
    pub ratio: Interval,
    /// How much more it is, in µs.
    pub added_us: Interval,
    /// The ratio of this build and the one before, if there is one.
    pub of_before: Option<Interval>,
}

impl Effect {
    fn of(samples: &[Vec<Cost>], ns: impl Fn(&Cost) -> f64) -> Self {
        let of = |costs: &Vec<Cost>| Vec::from_iter(costs.iter().map(&ns));
        let (off, on) = (of(&samples[0]), of(&samples[1]));
        let ratio = |on, off| on / off;
        Self {
            off_us: median(&off).0 / 1e3,
            ratio: Interval::of_pairs(&on, &off, ratio),
            added_us: Interval::of_pairs(&on, &off, |on, off| (on - off) / 1e3),
            of_before: samples
                .get(2)
                .map(|before| Interval::of_pairs(&on, &of(before), ratio)),
        }
    }
}

/// A row that was measured.
pub struct Measured {
    pub name: String,
    pub rounds: usize,
    /// Whether the interval is as narrow as it should be.
    pub is_certain: bool,
    pub worker: Effect,
    pub machine: Effect,
}

impl Measured {
    fn of(name: &str, plan: &Plan, samples: &[Vec<Cost>]) -> Self {
        let worker = Effect::of(samples, |cost| cost.worker_ns);
        Self {
            name: name.to_owned(),
            rounds: samples[0].len(),
            is_certain: plan.is_certain(&worker.ratio),
            worker,
            machine: Effect::of(samples, |cost| cost.machine_ns),
        }
    }
}

/// The line of the terminal.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_certain { ' ' } else { '!' };
        write!(f, "{:<36} {:>3}{mark}", self.name, self.rounds)?;
        for effect in [&self.worker, &self.machine] {
            let (ratio, added) = (&effect.ratio, &effect.added_us);
            write!(
                f,
                " |{:>8.2} {:>7.3} [{:.3} {:.3}] {:>+7.2}",
                effect.off_us, ratio.median, ratio.low, ratio.high, added.median
            )?;
            if let Some(ratio) = &effect.of_before {
                write!(
                    f,
                    " before {:.3} [{:.3} {:.3}]",
                    ratio.median, ratio.low, ratio.high
                )?;
            }
        }
        Ok(())
    }
}
