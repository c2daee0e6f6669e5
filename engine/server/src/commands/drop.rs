//! `logweir drop`: takes away what logweir made at a source for a stream.
//!
//! A replication slot that nobody reads keeps log at its server until the disk is full, so a stream that is given up must
//! be able to leave nothing behind.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use logweir_postgres::source::Fate;

use crate::commands::run::choose;
use crate::config::Loaded;
use crate::failure::{Failure, WORK_FAILED};
use crate::text::print;

/// Runs the command.
pub(crate) async fn run(loaded: &Loaded, name: &str, yes: bool) -> Result<ExitCode, Failure> {
    choose(loaded, &[name.to_owned()])?;
    let Some(source) = loaded.postgres_source(name)? else {
        print(&format!("there is nothing to drop: the source of stream {name} keeps nothing for it\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let options = source.options();
    let checkpoint = loaded.state(name)?;
    eprintln!(
        "this drops the replication slot {} at {}, and the publication {} if logweir made it.\n\
         The server then forgets where stream {name} stands: changes that were not landed by now cannot be read any more.",
        options.slot,
        options.address(),
        options.publication,
    );
    if !yes && !confirmed(name)? {
        eprintln!("nothing was dropped");
        return Ok(ExitCode::from(WORK_FAILED));
    }
    let dropped = source.drop_slot().await?;
    print(&format!("slot {}: {}\n", options.slot, said(&dropped.slot)))?;
    print(&format!("publication {}: {}\n", options.publication, said(&dropped.publication)))?;
    if matches!(dropped.slot, Fate::Dropped) && checkpoint.peek().await?.is_some() {
        eprintln!("the checkpoint {} still holds a place in the slot: remove it before the stream is begun anew", checkpoint.location());
    }
    Ok(ExitCode::SUCCESS)
}

fn said(fate: &Fate) -> String {
    match fate {
        Fate::Dropped => "dropped".to_owned(),
        Fate::NotThere => "not there".to_owned(),
        Fate::Kept(reason) => format!("kept, {reason}"),
    }
}

/// Asks the person, who must type the stream's name; without a person there must be `--yes`.
fn confirmed(name: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage("nobody can be asked here: add --yes to drop without a question".to_owned()));
    }
    eprint!("type the name of the stream to go on: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    // An answer that cannot be read is none.
    let read = stdin.read_line(&mut answer).is_ok();
    Ok(read && answer.trim() == name)
}
