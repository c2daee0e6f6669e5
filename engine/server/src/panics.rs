//! What is said of a panic. What it says itself may quote a row, and is left out unless it is the same for every row.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// From now on panics are told by [`told`]; those that a transform's evaluation catches are not told at all, because they are bad values.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        if !logweir_sql::catches_panics() {
            eprintln!("{}", told(panic));
        }
    }));
}

fn told(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    // A text that was put together at run time is a `String`.
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("what it says is not shown, for it may hold values");
    let trace = Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    format!("a fault of logweir, please report it: panic at {place}: {message}{trace}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn values_are_not_told() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| hearing.lock().unwrap().push(told(panic))));
        let secret = String::from("4711");
        let _ = std::panic::catch_unwind(|| panic!("always the same"));
        let _ = std::panic::catch_unwind(|| panic!("a row with {secret}"));
        std::panic::set_hook(before);
        let heard: Vec<String> = heard.lock().unwrap().drain(..).filter(|told: &String| told.contains("panics.rs")).collect();
        assert!(heard[0].contains("always the same"), "{heard:?}");
        assert!(!heard[1].contains("4711"), "{heard:?}");
    }
}
