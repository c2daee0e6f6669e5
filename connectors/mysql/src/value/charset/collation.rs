//! Collation ids, which are how a binlog names a character set.
//!
//! MySQL's are in `information_schema.collations`. MariaDB's are the same below 256; above, it has its own: 576 and on
//! for languages, 1024 and on for the same collations without padding, and 2048 and on, 256 for each of five character
//! sets, for those of UCA 14.

use super::Charset::{self, *};

/// The character set of a collation; `None` for an id that no server gives.
pub(super) fn charset(id: u16) -> Option<Charset> {
    Some(match id {
        1024..2048 => return padded(id - 1024),
        2048..2304 => Utf8mb3,
        2304..2560 => Utf8mb4,
        2560..2816 => Ucs2,
        2816..3072 => Utf16,
        3072..3328 => Utf32,
        _ => return padded(id),
    })
}

/// The character set of a collation that was there before the larger ids were.
fn padded(id: u16) -> Option<Charset> {
    Some(match id {
        32 | 64 => Armscii8,
        11 | 65 => Ascii,
        1 | 84 => Big5,
        63 => Binary,
        26 | 34 | 44 | 66 | 99 => Cp1250,
        14 | 23 | 50..=52 => Cp1251,
        57 | 67 => Cp1256,
        29 | 58..=59 => Cp1257,
        4 | 80 => Cp850,
        40 | 81 => Cp852,
        36 | 68 => Cp866,
        95..=96 => Cp932,
        3 | 69 => Dec8,
        97..=98 => Eucjpms,
        19 | 85 => Euckr,
        248..=250 => Gb18030,
        24 | 86 => Gb2312,
        28 | 87 => Gbk,
        92..=93 => Geostd8,
        25 | 70 => Greek,
        16 | 71 => Hebrew,
        6 | 72 => Hp8,
        37 | 73 => Keybcs2,
        7 | 74 => Koi8r,
        22 | 75 => Koi8u,
        5 | 8 | 15 | 31 | 47..=49 | 94 => Latin1,
        2 | 9 | 21 | 27 | 77 => Latin2,
        30 | 78 => Latin5,
        20 | 41..=42 | 79 => Latin7,
        38 | 43 => Macce,
        39 | 53 => Macroman,
        13 | 88 => Sjis,
        10 | 82 => Swe7,
        18 | 89 => Tis620,
        35 | 90 | 128..=159 | 640..=671 => Ucs2,
        12 | 91 => Ujis,
        54..=55 | 101..=124 | 672..=703 => Utf16,
        56 | 62 => Utf16le,
        60..=61 | 160..=183 | 736..=767 => Utf32,
        33 | 76 | 83 | 192..=223 | 576..=607 => Utf8mb3,
        45..=46 | 224..=247 | 255..=323 | 608..=639 => Utf8mb4,
        _ => return None,
    })
}
