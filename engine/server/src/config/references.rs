//! Checks that span the file: names that point at something, and combinations that make sense.
//!
//! Works on the tree, so that a file with other mistakes is still checked for these.

use super::masks;
use super::problem::{Place, Problem, nearest};
use super::profiles::SOURCE_KINDS;
use super::tree::{Node, Value};

/// Below this a stream spends its time waiting for memory.
const MEMORY_MIN: u64 = 64 << 20;

/// All mistakes of the kind.
pub(crate) fn check(root: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(memory) = root.get("memory") {
        check_memory(memory, root.get("streams"), &mut problems);
    }
    let profiles = root.get("profiles");
    for (profile, _) in profiles.map(Node::entries).unwrap_or_default().iter().map(|(key, node)| (node, key)) {
        check_tls(profile, &mut problems);
    }
    for section in ["profiles", "streams"] {
        if let Some(node) = root.get(section).filter(|node| matches!(&node.value, Value::Map(entries) if entries.is_empty())) {
            problems.push(Problem::new(node.place, format!("`{section}` is empty")));
        }
    }
    for (_, stream) in root.get("streams").map(Node::entries).unwrap_or_default() {
        check_stream(stream, profiles, &mut problems);
        masks::check(stream, root.get("keys"), &mut problems);
        check_kind(stream, profiles, &mut problems);
    }
    check_slots(root.get("streams"), profiles, &mut problems);
    problems
}

fn check_memory(memory: &Node, streams: Option<&Node>, problems: &mut Vec<Problem>) {
    let Some(size) = memory.text().and_then(|text| super::units::Size::parse(text).ok()) else { return };
    let count = streams.map_or(1, |streams| streams.entries().len().max(1)) as u64;
    if size.0 / count < MEMORY_MIN {
        problems.push(
            Problem::new(memory.place, "`memory` is too small")
                .help(format!("it is shared by all streams, and each needs at least 64MiB: write {}MiB or more", 64 * count)),
        );
    }
}

fn check_tls(profile: &Node, problems: &mut Vec<Problem>) {
    let server = profile.get("mysql").or_else(|| profile.get("postgres"));
    let Some(tls) = server.and_then(|server| server.get("tls")) else { return };
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(node), None) = (tls.get(one), tls.get(other)) {
            problems.push(Problem::new(node.place, format!("`{one}` needs `{other}` beside it")));
        }
    }
}

fn check_stream(stream: &Node, profiles: Option<&Node>, problems: &mut Vec<Problem>) {
    if let Some(source) = stream.get("source") {
        check_profile(source, profiles, true, problems);
    }
    if let Some(include) = stream.get("tables").and_then(|tables| tables.get("include"))
        && matches!(&include.value, Value::List(items) if items.is_empty())
    {
        problems.push(Problem::new(include.place, "`include` names no table").help("leave it out to follow every table"));
    }
    let mut names: Vec<(&str, Place)> = Vec::new();
    let mut places: Vec<(&str, &str)> = Vec::new();
    for destination in stream.get("destinations").map(Node::items).unwrap_or_default() {
        let Some(profile) = destination.get("profile") else { continue };
        check_profile(profile, profiles, false, problems);
        let Some(profile_name) = profile.text() else { continue };
        let named = destination.get("name").unwrap_or(profile);
        if let Some(name) = named.text() {
            if names.iter().any(|(other, _)| *other == name) {
                problems.push(
                    Problem::new(named.place, format!("two destinations of the stream are called `{name}`"))
                        .help("give each a `name` of its own: it stands for the destination in the checkpoint"),
                );
            }
            names.push((name, named.place));
        }
        let path = destination.get("path").and_then(Node::text).unwrap_or(logweir_files::FilesOptions::DEFAULT_PATH);
        if places.contains(&(profile_name, path)) {
            problems.push(
                Problem::new(profile.place, format!("two destinations of the stream write to the same place of `{profile_name}`"))
                    .help("give one of them another `path` or another profile"),
            );
        }
        places.push((profile_name, path));
    }
    for (_, reference) in stream.get("references").map(Node::entries).unwrap_or_default() {
        if let Some(profile) = reference.get("profile") {
            check_profile(profile, profiles, true, problems);
            let kind = profiles.zip(profile.text()).and_then(|(profiles, name)| profiles.get(name)?.entries().first());
            if kind.is_some_and(|(kind, _)| kind.name == "mysql_files") {
                problems.push(
                    Problem::new(profile.place, "a recording of a log cannot be asked a query")
                        .help("name the profile of a database, or read a file: `path` or `url`"),
                );
            }
        }
    }
}

/// The kind of a stream's source and what stands under it, if the source is there.
fn source<'a>(stream: &Node, profiles: Option<&'a Node>) -> Option<(&'a str, &'a Node)> {
    let profile = profiles?.get(stream.get("source")?.text()?)?;
    profile.entries().first().map(|(kind, node)| (kind.name.as_str(), node))
}

/// What a kind of source does not know.
fn check_kind(stream: &Node, profiles: Option<&Node>, problems: &mut Vec<Problem>) {
    let Some((kind, _)) = source(stream, profiles) else { return };
    let mysql = matches!(kind, "mysql" | "mysql_files");
    let start = stream.get("start").and_then(|start| start.entries().first());
    let sentence = match start.map(|(key, _)| key.name.as_str()) {
        Some("lsn") if mysql => Some("an LSN is no place in a MySQL log; use `now`, `earliest`, `{ file, position }` or `{ gtid }`"),
        Some("file" | "position" | "gtid") if kind == "postgres" => {
            Some("files and GTIDs are no places in a PostgreSQL log; use `now`, `earliest` or `{ lsn }`")
        }
        _ => None,
    };
    if let (Some(sentence), Some((key, _))) = (sentence, start) {
        problems.push(Problem::new(key.place, sentence));
    }
    if let Some(backfill) = stream.get("backfill")
        && mysql
        && backfill.text() != Some("none")
        // Whatever else it is, it is a mistake of its own.
        && (backfill.text() == Some("all") || !backfill.entries().is_empty())
    {
        let place = backfill.entries().first().map_or(backfill.place, |(key, _)| key.place);
        problems.push(Problem::new(
            place,
            "backfill is not available yet for MySQL: this version follows the log from `start` on; write `backfill: none`",
        ));
    }
}

/// Two streams that read one slot would take each other's changes.
fn check_slots(streams: Option<&Node>, profiles: Option<&Node>, problems: &mut Vec<Problem>) {
    // A server has one list of slots for all its databases.
    let mut known: Vec<(String, &str)> = Vec::new();
    for (name, stream) in streams.map(Node::entries).unwrap_or_default() {
        let Some(("postgres", server)) = source(stream, profiles) else { continue };
        let named = server.get("slot").and_then(Node::text);
        let slot = named.map_or_else(|| logweir_postgres::options::default_name(&name.name), str::to_owned);
        let host = server.get("host").and_then(Node::text).unwrap_or_default();
        let port = server.get("port").map_or(serde_json::Value::from(logweir_postgres::options::DEFAULT_PORT), Node::to_json);
        let place = format!("{host}:{port} {slot}");
        match known.iter().find(|(other, _)| *other == place) {
            Some((_, other)) => {
                let help = match named {
                    Some(_) => "leave `slot` out of the profile, so that each stream has its own, or give each stream a profile of its own",
                    None => {
                        "name the streams so that they differ in more than punctuation, or give one of them a profile with its own `slot`"
                    }
                };
                let message = format!("the streams `{other}` and `{}` use the same slot `{slot}`", name.name);
                problems.push(Problem::new(name.place, message).help(help));
            }
            None => known.push((place, &name.name)),
        }
    }
}

/// A name of a profile must be there and of the right side.
fn check_profile(node: &Node, profiles: Option<&Node>, source: bool, problems: &mut Vec<Problem>) {
    let Some(name) = node.text() else { return };
    let side = |profile: &Node| profile.entries().first().map(|(kind, _)| SOURCE_KINDS.contains(&kind.name.as_str()));
    let entries = profiles.map(Node::entries).unwrap_or_default();
    let fitting: Vec<&str> =
        entries.iter().filter(|(_, profile)| side(profile) == Some(source)).map(|(key, _)| key.name.as_str()).collect();
    let noun = if source { "sources" } else { "destinations" };
    let list =
        if fitting.is_empty() { format!("there are no {noun} among the profiles") } else { format!("{noun} are: {}", fitting.join(", ")) };
    match entries.iter().find(|(key, _)| key.name == name) {
        None => {
            let help = match nearest(name, fitting.iter().copied()) {
                Some(nearest) => format!("did you mean `{nearest}`? {list}"),
                None => list,
            };
            problems.push(Problem::new(node.place, format!("there is no profile `{name}`")).help(help));
        }
        Some((_, profile)) => {
            if let (Some(is_source), Some((kind, _))) = (side(profile), profile.entries().first())
                && is_source != source
            {
                let message = format!("the profile `{name}` is {}", if is_source { "a source" } else { "a destination" });
                problems.push(Problem::new(node.place, format!("{message} (`{}`)", kind.name)).help(list));
            }
        }
    }
}
