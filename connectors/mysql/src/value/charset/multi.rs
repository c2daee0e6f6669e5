//! The character sets of East Asia, where a character takes one to four bytes.
//!
//! encoding_rs knows nearly all of their codes. Where a server differs, [`exceptions`](super::exceptions) says so. The two
//! become one table per character set, built when the set is met for the first time: 64 KiB for the codes of two bytes,
//! and as much for those of three where there are any.

use std::sync::OnceLock;

use encoding_rs::{BIG5 as BIG5_RS, DecoderResult, EUC_JP, EUC_KR, Encoding, GB18030 as GB18030_RS, GBK as GBK_RS, SHIFT_JIS};

use super::exceptions::{self, Exception};
use super::{NOT_TEXT, ValueResult, character};

/// How many bytes a character takes, which its first one or two tell.
enum Lengths {
    /// Two bytes from 0x80 on.
    Two,
    /// Two bytes from 0x80 on, but four if the second is a digit.
    TwoOrFour,
    /// Two bytes, but for half-width katakana in one.
    ShiftJis,
    /// Two bytes, but three after 0x8f.
    Euc,
}

/// A multi-byte character set.
pub(super) struct MultiByte {
    encoding: &'static Encoding,
    lengths: Lengths,
    /// Where a server differs from encoding_rs in codes of two bytes.
    exceptions: &'static [Exception],
    /// The same after 0x8f, in codes of three.
    exceptions_three: &'static [Exception],
    tables: OnceLock<Tables>,
}

/// What every code with the first bit set means, less that bit; 0 where it means nothing.
struct Tables {
    two: Box<[u16]>,
    /// The two bytes that follow 0x8f.
    three: Box<[u16]>,
}

const fn set(
    encoding: &'static Encoding,
    lengths: Lengths,
    exceptions: &'static [Exception],
    exceptions_three: &'static [Exception],
) -> MultiByte {
    MultiByte { encoding, lengths, exceptions, exceptions_three, tables: OnceLock::new() }
}

pub(super) static BIG5: MultiByte = set(BIG5_RS, Lengths::Two, exceptions::BIG5, &[]);
pub(super) static GBK: MultiByte = set(GBK_RS, Lengths::Two, exceptions::GBK, &[]);
pub(super) static GB2312: MultiByte = set(GBK_RS, Lengths::Two, exceptions::GB2312, &[]);
pub(super) static GB18030: MultiByte = set(GB18030_RS, Lengths::TwoOrFour, exceptions::GB18030, &[]);
pub(super) static EUCKR: MultiByte = set(EUC_KR, Lengths::Two, &[], &[]);
pub(super) static SJIS: MultiByte = set(SHIFT_JIS, Lengths::ShiftJis, exceptions::SJIS, &[]);
pub(super) static CP932: MultiByte = set(SHIFT_JIS, Lengths::ShiftJis, &[], &[]);
pub(super) static UJIS: MultiByte = set(EUC_JP, Lengths::Euc, exceptions::UJIS, exceptions::UJIS_THREE);
pub(super) static EUCJPMS: MultiByte = set(EUC_JP, Lengths::Euc, exceptions::EUCJPMS, exceptions::EUCJPMS_THREE);

impl MultiByte {
    /// Appends the text of `bytes`.
    pub(super) fn decode(&self, bytes: &[u8], out: &mut String) -> ValueResult<()> {
        let tables = self.tables.get_or_init(|| self.build());
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            let (found, length) = match (first, &self.lengths, after) {
                (0..0x80, _, _) => (char::from(*first), 1),
                (0xa1..=0xdf, Lengths::ShiftJis, _) => (character(0xff61 - 0xa1 + u16::from(*first))?, 1),
                (_, Lengths::TwoOrFour, [b'0'..=b'9', ..]) => {
                    let code = rest.get(..4).ok_or(NOT_TEXT)?;
                    (one(self.encoding, code).ok_or(NOT_TEXT)?, 4)
                }
                (0x8f, Lengths::Euc, [second, third, ..]) => (lookup(&tables.three, *second, *third)?, 3),
                (_, _, [second, ..]) => (lookup(&tables.two, *first, *second)?, 2),
                (_, _, []) => return Err(NOT_TEXT),
            };
            out.push(found);
            rest = &rest[length..];
        }
        Ok(())
    }

    fn build(&self) -> Tables {
        let three = match self.lengths {
            Lengths::Euc => self.table(|first, second| one(self.encoding, &[0x8f, first, second]), self.exceptions_three),
            _ => Box::default(),
        };
        Tables { two: self.table(|first, second| one(self.encoding, &[first, second]), self.exceptions), three }
    }

    fn table(&self, known: impl Fn(u8, u8) -> Option<char>, exceptions: &[Exception]) -> Box<[u16]> {
        let mut table: Box<[u16]> = (0x8000..=0xffffu16)
            .map(|code| {
                let [first, second] = code.to_be_bytes();
                known(first, second).and_then(|found| u16::try_from(u32::from(found)).ok()).unwrap_or(0)
            })
            .collect();
        for exception in exceptions {
            for code in exception.first..=exception.last {
                table[usize::from(code - 0x8000)] = match exception.first_means {
                    0 => 0,
                    point => point + (code - exception.first),
                };
            }
        }
        table
    }
}

fn lookup(table: &[u16], first: u8, second: u8) -> ValueResult<char> {
    let code = u16::from_be_bytes([first, second]);
    let place = code.checked_sub(0x8000).ok_or(NOT_TEXT)?;
    character(table.get(usize::from(place)).copied().unwrap_or(0))
}

/// What encoding_rs takes `code` for, if it is exactly one character.
fn one(encoding: &'static Encoding, code: &[u8]) -> Option<char> {
    let mut text = [0u8; 16];
    let (result, read, written) = encoding.new_decoder_without_bom_handling().decode_to_utf8_without_replacement(code, &mut text, true);
    if result != DecoderResult::InputEmpty || read != code.len() {
        return None;
    }
    let mut characters = std::str::from_utf8(&text[..written]).ok()?.chars();
    characters.next().filter(|_| characters.next().is_none())
}
