//! Where changes are kept between the source and the destinations, and for how long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problem::{Place, Problem};
use super::profiles::OptionValue;
use super::tree::Node;
use super::units::{Size, Span};

/// Where changes are kept on their way.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeLog {
    /// In memory only: the slowest destination holds up the others, and a fault of one restarts the stream.
    Memory,
    /// On disk.
    #[serde(untagged)]
    Disk(ChangeLogOptions),
}

/// How changes are kept on disk.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ChangeLogOptions {
    /// The directory; `STATE/STREAM/log` when left out. A relative path begins at the configuration file's directory. One stream writes there.
    pub(crate) dir: Option<PathBuf>,
    /// A prefix of an object store that has the log, too: `s3://bucket/prefix`, or `file:///directory`. The directory then holds what is being written, and
    /// copies; whoever loses it, or reads elsewhere, finds the log in the store. One stream writes there.
    #[schemars(extend("format" = "store-url"))]
    pub(crate) url: Option<String>,
    /// Options of the object store.
    pub(crate) options: BTreeMap<String, OptionValue>,
    /// With `url`: beyond so much the directory does not hold what the store has.
    pub(crate) cache: Size,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// How much is kept for those who come later.
    pub(crate) retain: Retain,
}

impl Default for ChangeLogOptions {
    fn default() -> Self {
        ChangeLogOptions {
            dir: None,
            url: None,
            options: BTreeMap::new(),
            cache: Size(1 << 30),
            compression: Compression::default(),
            retain: Retain::default(),
        }
    }
}

/// How much of the changes is kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retain {
    /// What is older goes.
    pub(crate) age: Span,
    /// What is more goes, the oldest first. The stream waits instead for a destination that is as far behind; with `acknowledge: log` only for
    /// one that works.
    pub(crate) size: Size,
}

impl Default for Retain {
    fn default() -> Self {
        Retain { age: Span(Duration::from_secs(24 * 60 * 60)), size: Size(1 << 30) }
    }
}

/// How changes on disk are compressed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    /// Not.
    None,
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Zstd,
}

/// When the source may forget a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Acknowledge {
    /// When it is visible in every destination.
    #[default]
    Destination,
    /// When the change log on disk holds it: no destination makes the source keep its log. One that is broken for longer than `retain` needs a
    /// backfill.
    Log,
}

/// A prefix of a store, and what is kept there.
struct Prefix<'a> {
    owner: String,
    /// A bucket of the same name at another endpoint is another one.
    endpoint: Option<&'a str>,
    url: String,
}

impl<'a> Prefix<'a> {
    /// Of something with `url` and `options`, if it has a URL.
    fn of(node: &'a Node, owner: String) -> Option<(Self, Place)> {
        let url = node.get("url")?;
        let endpoint = node.get("options").and_then(|options| options.get("endpoint")).and_then(Node::text);
        let text = url.text()?.trim_end_matches('/').replacen("s3a://", "s3://", 1);
        Some((Prefix { owner, endpoint, url: text }, url.place))
    }

    fn overlaps(&self, other: &Prefix<'_>) -> bool {
        let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.endpoint == other.endpoint && (within(&self.url, &other.url) || within(&other.url, &self.url))
    }
}

/// Change logs in stores: what only they need, and that nothing else is kept where they are.
pub(super) fn check(root: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let profiles = root.get("profiles").map(Node::entries).unwrap_or_default();
    let files = profiles.iter().filter_map(|(name, profile)| Prefix::of(profile.get("files")?, format!("the profile `{}`", name.name)));
    let state = root.get("state").and_then(|state| Prefix::of(state, "the state".to_owned()));
    let mut known: Vec<Prefix<'_>> = files.chain(state).map(|(prefix, _)| prefix).collect();
    for (name, stream) in root.get("streams").map(Node::entries).unwrap_or_default() {
        let Some(log) = stream.get("change_log") else { continue };
        let Some((prefix, place)) = Prefix::of(log, format!("the change log of `{}`", name.name)) else {
            for key in ["cache", "options"] {
                if let Some(node) = log.get(key) {
                    problems.push(Problem::new(node.place, format!("`{key}` needs `url` beside it")));
                }
            }
            continue;
        };
        if let Some(other) = known.iter().find(|other| prefix.overlaps(other)) {
            let message = format!("{} is not apart from {}", prefix.owner, other.owner);
            let help = "give it a prefix of its own, that neither lies below another one nor has one below it";
            problems.push(Problem::new(place, message).help(help));
        }
        known.push(prefix);
    }
    problems
}
