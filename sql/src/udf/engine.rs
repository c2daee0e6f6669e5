//! A script in its world: QuickJS with limits, called a row at a time.
//!
//! Nothing reaches out of it: no files, no network, no timers, no chance, no clock but the time of the change. What a script finds
//! when a row comes is what it found at the first one, but for what it keeps itself; after a limit was hit it is
//! loaded anew.
//!
//! Processor time is limited, not time by the clock: how busy the machine is must not decide what becomes of a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::{Coerced, Context, Ctx, Exception, Function, Object, Runtime, Value};
use rustix::time::{ClockId, clock_gettime};

/// What a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdfLimits {
    /// Processor time of a call.
    pub time: Duration,
    /// Memory of a script and all that it holds.
    pub memory_bytes: usize,
}

impl UdfLimits {
    /// Long enough for anything that is done to one row, short enough that a loop is noticed before anybody waits.
    pub const DEFAULT_TIME: Duration = Duration::from_millis(100);
    /// Several times what a script and a large row need.
    pub const DEFAULT_MEMORY_BYTES: usize = 64 << 20;
}

impl Default for UdfLimits {
    fn default() -> Self {
        UdfLimits { time: Self::DEFAULT_TIME, memory_bytes: Self::DEFAULT_MEMORY_BYTES }
    }
}

/// Depth of calls. Far less than the smallest stack of a thread that streams run on (2 MiB), far more than a script needs.
const STACK_BYTES: usize = 256 << 10;

/// A script may build tables when it is loaded: this much longer than a call may take.
const LOAD_TIME_FACTOR: u32 = 10;

/// The least bytes of an element of an array.
const ELEMENT_BYTES: usize = 8;

const PRELUDE: &str = include_str!("prelude.js");

/// What the script is called in the stacks of exceptions.
const SCRIPT: &str = "script";

/// What is there of the language. Not what depends on chance or time: weak references, performance counters.
type Intrinsics = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Proxy,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
);

/// Watches over the time of a call. The engine asks it now and then while code runs, not inside of what is built in, and counts from
/// one question to the next across calls; so the clock is read at the end of every call, too.
#[derive(Debug, Default)]
struct Watch {
    limit: AtomicU64,
    /// Processor time of the thread when the call began.
    began: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    fn begin(&self, limit: Duration) {
        self.limit.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.began.store(processor_nanos(), Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// True if the call is to end.
    fn look(&self) -> bool {
        let took = processor_nanos().saturating_sub(self.began.load(Ordering::Relaxed));
        let over = took > self.limit.load(Ordering::Relaxed);
        if over {
            self.over.store(true, Ordering::Relaxed);
        }
        over
    }
}

/// Processor time that this thread has taken.
fn processor_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What the function made of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// Null or undefined.
    Nothing,
    Json(String),
}

/// Why it made nothing. Never with what the script says of it, for that may quote a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) reason: String,
    /// What is left of the script's world is not to be used again.
    pub(super) spoilt: bool,
    /// It may have been for want of memory that earlier rows left taken.
    pub(super) memory: bool,
}

impl Failed {
    fn new(reason: impl Into<String>) -> Self {
        Failed { reason: reason.into(), spoilt: false, memory: false }
    }
}

/// Why a script cannot be used: no row has been seen, so this is in the script's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadFailed {
    pub(super) message: String,
    /// Line and column of the script.
    pub(super) place: Option<(usize, usize)>,
}

impl LoadFailed {
    fn new(message: impl Into<String>) -> Self {
        LoadFailed { message: message.into(), place: None }
    }
}

/// See the module.
pub(super) struct Engine {
    context: Context,
    watch: Arc<Watch>,
    limits: UdfLimits,
    /// The time that the script was last told.
    now: AtomicI64,
}

/// What is called, kept with the script's world: the function, and what sets its clock.
type Handles<'js> = Vec<Function<'js>>;

impl Engine {
    /// Runs the script, and finds its function.
    pub(super) fn new(script: &str, function: &str, limits: UdfLimits) -> Result<Self, LoadFailed> {
        let unusable = |_| LoadFailed::new("there is not enough memory for JavaScript");
        let runtime = Runtime::new().map_err(unusable)?;
        runtime.set_max_stack_size(STACK_BYTES);
        let watch = Arc::new(Watch::default());
        let watching = Arc::clone(&watch);
        runtime.set_interrupt_handler(Some(Box::new(move || watching.look())));
        let context = Context::custom::<Intrinsics>(&runtime).map_err(unusable)?;
        watch.begin(limits.time.saturating_mul(LOAD_TIME_FACTOR));
        context.with(|ctx| prepare(&ctx, limits, &watch))?;
        // From here on: without the world itself there is nothing that could say so.
        runtime.set_memory_limit(limits.memory_bytes);
        context.with(|ctx| load(&ctx, script, function, limits, &watch))?;
        Ok(Engine { context, watch, limits, now: AtomicI64::new(0) })
    }

    /// Calls the function with a row that changed at `now`, in milliseconds since 1970.
    pub(super) fn call(&self, row: &str, now: i64) -> Result<Returned, Failed> {
        self.watch.begin(self.limits.time);
        self.context.with(|ctx| {
            let called = self.call_in(&ctx, row, now);
            // What was put off until later is done now, at this row's cost.
            while !self.watch.look() && ctx.execute_pending_job() {}
            if self.watch.is_over() || self.watch.look() {
                let reason = format!("the function took longer than {:?}", self.limits.time);
                return Err(Failed { reason, spoilt: true, memory: false });
            }
            called
        })
    }

    fn call_in<'js>(&self, ctx: &Ctx<'js>, row: &str, now: i64) -> Result<Returned, Failed> {
        let failed = |error: rquickjs::Error| self.failed(ctx, &error);
        let (function, set_now) = match ctx.userdata::<Handles<'js>>().as_deref().map(Vec::as_slice) {
            Some([function, set_now]) => (function.clone(), set_now.clone()),
            _ => return Err(Failed { reason: "the script is gone".to_owned(), spoilt: true, memory: false }),
        };
        if self.now.swap(now, Ordering::Relaxed) != now {
            set_now.call::<_, ()>((now as f64,)).map_err(failed)?;
        }
        let row = rquickjs::String::from_str(ctx.clone(), row).map_err(failed)?;
        let returned: Value<'js> = function.call((row,)).map_err(failed)?;
        if returned.is_null() || returned.is_undefined() {
            return Ok(Returned::Nothing);
        }
        if returned.is_promise() {
            return Err(Failed::new("the function returned a promise, and nothing waits for it"));
        }
        let json = match returned.as_string() {
            Some(text) => Some(text.clone()),
            None if returned.is_object() => ctx.json_stringify(returned).map_err(failed)?,
            None => None,
        };
        match json {
            Some(json) => {
                let json = json.to_string().map_err(failed)?;
                // What `JSON.stringify` makes of null.
                Ok(if json == "null" { Returned::Nothing } else { Returned::Json(json) })
            }
            None => Err(Failed::new("the function returned neither a row nor null")),
        }
    }

    fn failed(&self, ctx: &Ctx<'_>, error: &rquickjs::Error) -> Failed {
        match error {
            rquickjs::Error::Exception => {}
            rquickjs::Error::Utf8(_) => return Failed::new("the function returned text with half a character"),
            rquickjs::Error::Allocation => return self.out_of_memory(),
            _ => return Failed { reason: "the function could not be called".to_owned(), spoilt: true, memory: true },
        }
        let thrown = ctx.catch();
        let Some(exception) = thrown.as_exception() else {
            // Where there is no memory for an exception, null is thrown.
            if thrown.is_null() {
                let reason = "the function threw null, or had no memory left for an error".to_owned();
                return Failed { reason, spoilt: true, memory: true };
            }
            return Failed::new("the function threw a value that is no error");
        };
        let name = text(exception, "name");
        let message = text(exception, "message");
        match (name.as_deref(), message.as_deref()) {
            (Some("InternalError"), Some("out of memory")) => return self.out_of_memory(),
            (Some("RangeError"), Some("Maximum call stack size exceeded")) => return Failed::new("the function recursed too deep"),
            _ => {}
        }
        // A script may call its errors what it likes.
        const KNOWN: [&str; 8] =
            ["TypeError", "RangeError", "ReferenceError", "SyntaxError", "URIError", "EvalError", "InternalError", "AggregateError"];
        let name = KNOWN.into_iter().find(|known| Some(*known) == name.as_deref());
        let mut reason = match name {
            Some(name) => format!("the function threw a {name}"),
            None => "the function threw an error".to_owned(),
        };
        if let Some((line, _)) = text(exception, "stack").as_deref().and_then(place_in) {
            reason.push_str(&format!(" at line {line}"));
        }
        Failed::new(reason)
    }

    fn out_of_memory(&self) -> Failed {
        let reason = format!("the function needs more memory than {} KiB", self.limits.memory_bytes >> 10);
        Failed { reason, spoilt: true, memory: true }
    }
}

/// Makes the world of a script, and keeps what seals it and what sets its clock.
fn prepare<'js>(ctx: &Ctx<'js>, limits: UdfLimits, watch: &Watch) -> Result<(), LoadFailed> {
    let failed = |error| load_failed(ctx, &error, limits, watch);
    let prelude: Function<'js> = ctx.eval_with_options(PRELUDE, named("prelude")).map_err(failed)?;
    let outside: Object<'js> = prelude.call((limits.memory_bytes / ELEMENT_BYTES,)).map_err(failed)?;
    let handles: Handles<'js> = vec![outside.get("seal").map_err(failed)?, outside.get("setNow").map_err(failed)?];
    ctx.store_userdata(handles).map_err(|_| LoadFailed::new("the script cannot be kept"))?;
    Ok(())
}

/// Runs the script, and puts its function in the place of what seals its world.
fn load<'js>(ctx: &Ctx<'js>, script: &str, function: &str, limits: UdfLimits, watch: &Watch) -> Result<(), LoadFailed> {
    let failed = |error| load_failed(ctx, &error, limits, watch);
    let script = script.strip_prefix('\u{feff}').unwrap_or(script);
    let _: Value<'js> = ctx.eval_with_options(script, named(SCRIPT)).map_err(failed)?;
    // By its name, for what is declared with `const` is no property of anything.
    let find = format!("typeof {function} === 'function' ? {function} : undefined");
    let process: Option<Function<'js>> = ctx.eval_with_options(find, named("prelude")).map_err(failed)?;
    let process = process.ok_or_else(|| LoadFailed::new(format!("the script has no function {function}")))?;
    let unkept = || LoadFailed::new("the script cannot be kept");
    let mut handles = *ctx.remove_userdata::<Handles<'js>>().ok().flatten().ok_or_else(unkept)?;
    let seal = std::mem::replace(handles.first_mut().ok_or_else(unkept)?, process);
    seal.call::<_, ()>(()).map_err(failed)?;
    ctx.store_userdata(handles).map_err(|_| unkept())?;
    Ok(())
}

fn named(file: &str) -> EvalOptions {
    let mut options = EvalOptions::default();
    options.filename = Some(file.to_owned());
    options
}

fn load_failed(ctx: &Ctx<'_>, error: &rquickjs::Error, limits: UdfLimits, watch: &Watch) -> LoadFailed {
    if let rquickjs::Error::InvalidString(_) = error {
        return LoadFailed::new("the script holds a NUL");
    }
    let thrown = ctx.catch();
    if watch.is_over() {
        return LoadFailed::new(format!("the script took longer than {:?} to load", limits.time.saturating_mul(LOAD_TIME_FACTOR)));
    }
    let Some(exception) = thrown.as_exception() else {
        let reason = if thrown.is_null() { "the script has no memory left" } else { "the script threw a value that is no error" };
        return LoadFailed::new(reason);
    };
    let place = text(exception, "stack").as_deref().and_then(place_in);
    let message = match (text(exception, "name"), text(exception, "message")) {
        (Some(name), Some(message)) => format!("{name}: {message}"),
        (_, Some(message)) => message,
        _ => "the script could not be loaded".to_owned(),
    };
    LoadFailed { message, place }
}

fn text(exception: &Exception<'_>, property: &str) -> Option<String> {
    exception.get::<_, Option<Coerced<String>>>(property).ok().flatten().map(|text| text.0)
}

/// The first place of the script that a stack names: line and column. Nothing but numbers is taken from it.
fn place_in(stack: &str) -> Option<(usize, usize)> {
    stack.match_indices(SCRIPT).find_map(|(at, _)| {
        let mut numbers = stack[at + SCRIPT.len()..].strip_prefix(':')?.splitn(2, ':');
        let number = |text: &str| text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok();
        Some((number(numbers.next()?)?, number(numbers.next().unwrap_or("1")).unwrap_or(1)))
    })
}
