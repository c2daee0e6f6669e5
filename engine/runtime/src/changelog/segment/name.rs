//! Names of segments, and which of them count.
//!
//! A segment is called `<first entry, 20 digits>.changes`, and `<first entry>-<writer, 10 digits>.changes` where the log is in an object
//! store: there a writer that was taken for dead may go on writing for a while. Each writer has a number of its own, greater than those before, and
//! goes on in files of its own. So what it took over counts, and what an older one writes beside or behind that does not.

use std::cmp::Reverse;
use std::fmt;

/// The end of a name.
const SUFFIX: &str = ".changes";
/// Digits of the first entry.
const ENTRY_DIGITS: usize = 20;
/// Digits of the writer.
const WRITER_DIGITS: usize = 10;
/// The greatest number that a writer can have.
pub(super) const WRITER_MAX: u64 = 9_999_999_999;

/// What a segment is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentName {
    /// The number of its first entry.
    pub(super) first_entry: u64,
    /// Who wrote it; 0 where the log is in no store.
    pub(super) writer: u64,
}

impl SegmentName {
    /// `None` if the name is none of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_suffix(SUFFIX)?;
        let (first_entry, writer) = match name.split_once('-') {
            Some((first_entry, writer)) => (first_entry, parse_writer(writer)?),
            None => (name, 0),
        };
        Some(SegmentName { first_entry: number(first_entry, ENTRY_DIGITS)?, writer })
    }

    /// True if the other does not count beside this one.
    pub(super) fn overrules(self, other: SegmentName) -> bool {
        self.first_entry <= other.first_entry && self.writer > other.writer
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0ENTRY_DIGITS$}", self.first_entry)?;
        if self.writer > 0 {
            write!(f, "-{}", writer_text(self.writer))?;
        }
        f.write_str(SUFFIX)
    }
}

/// The number of a writer as names have it.
pub(super) fn writer_text(writer: u64) -> String {
    format!("{writer:0WRITER_DIGITS$}")
}

/// The number of a writer out of a name.
pub(super) fn parse_writer(digits: &str) -> Option<u64> {
    number(digits, WRITER_DIGITS).filter(|writer| *writer > 0)
}

fn number(digits: &str, length: usize) -> Option<u64> {
    let plain = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Puts segments in the order of the log and leaves out those that do not count: of one first entry the highest writer's does, and none behind a
/// higher writer's.
pub(super) fn keep_valid<T>(segments: &mut Vec<T>, name: impl Fn(&T) -> SegmentName) {
    segments.sort_unstable_by_key(|segment| {
        let name = name(segment);
        (name.first_entry, Reverse(name.writer))
    });
    let mut kept: Option<SegmentName> = None;
    segments.retain(|segment| {
        let name = name(segment);
        let valid = kept.is_none_or(|kept| name.first_entry > kept.first_entry && name.writer >= kept.writer);
        if valid {
            kept = Some(name);
        }
        valid
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(first_entry: u64, writer: u64) -> SegmentName {
        SegmentName { first_entry, writer }
    }

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_none() {
        for (segment, text) in [
            (name(0, 0), "00000000000000000000.changes"),
            (name(42, 7), "00000000000000000042-0000000007.changes"),
            (name(u64::MAX, WRITER_MAX), "18446744073709551615-9999999999.changes"),
        ] {
            assert_eq!((segment.to_string().as_str(), SegmentName::parse(text)), (text, Some(segment)));
        }
        for other in [
            "42.changes",
            "+0000000000000000042.changes",
            "00000000000000000042-7.changes",
            "00000000000000000042-0000000000.changes",
            "00000000000000000042-0000000007-1.changes",
            "99999999999999999999.changes",
            "00000000000000000042.part",
            "",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_an_older_writer_has_beside_or_behind_a_newer_one_does_not_count() {
        for (there, counts) in [
            (vec![], vec![]),
            (vec![(10, 0), (0, 0)], vec![(0, 0), (10, 0)]),
            // Taken over in the second segment, and gone on by both.
            (vec![(0, 1), (10, 1), (10, 2), (15, 1), (20, 2), (25, 1)], vec![(0, 1), (10, 2), (20, 2)]),
            // Begun anew.
            (vec![(0, 1), (10, 1), (0, 3)], vec![(0, 3)]),
            // Nothing of the first is left; the third took over before the second had put anything but its beginning.
            (vec![(10, 2), (10, 3), (5, 1), (30, 3), (30, 2)], vec![(5, 1), (10, 3), (30, 3)]),
        ] {
            let mut names: Vec<SegmentName> = there.iter().map(|(first, writer)| name(*first, *writer)).collect();
            keep_valid(&mut names, |name| *name);
            assert_eq!(names, counts.iter().map(|(first, writer)| name(*first, *writer)).collect::<Vec<_>>(), "{there:?}");
        }
    }
}
