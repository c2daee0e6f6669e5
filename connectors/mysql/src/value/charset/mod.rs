//! Character sets: what the bytes of a text column say, as UTF-8.
//!
//! Text that is UTF-8 already, or ASCII in a set that contains it, is borrowed; everything else is transcoded into a
//! buffer of the caller. The tables are the servers' own (MySQL manual, "Supported Character Sets and Collations"),
//! which are not quite those of the web: a test compares every code with the answers of running servers. Bytes that mean
//! nothing in their set are an error: a replacement character would be another value than the one in the table.

mod collation;
mod exceptions;
mod multi;
mod single;

use self::multi::MultiByte;
use super::{ValueError, ValueResult};

const NOT_TEXT: ValueError = ValueError::new("bytes are not valid in the column's character set");

macro_rules! charsets {
    ($($charset:ident $name:literal $max_bytes:literal $form:expr;)*) => {
        /// A character set of MySQL or MariaDB.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Charset {
            $(#[doc = $name] $charset,)*
        }

        impl Charset {
            /// Every character set.
            #[cfg(test)]
            pub(crate) const ALL: &[Charset] = &[$(Charset::$charset,)*];

            /// The character set of a name as `information_schema` has it.
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Charset::$charset),)*
                    "utf8" => Some(Charset::Utf8mb3),
                    _ => None,
                }
            }

            /// The server's name of it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Charset::$charset => $name,)*
                }
            }

            /// The most bytes that a character takes.
            pub(crate) fn max_bytes(self) -> usize {
                match self {
                    $(Charset::$charset => $max_bytes,)*
                }
            }

            #[inline]
            fn form(self) -> Form {
                match self {
                    $(Charset::$charset => $form,)*
                }
            }
        }
    };
}

/// How a character set is decoded.
enum Form {
    /// No text at all.
    Binary,
    /// UTF-8 or a part of it.
    Utf8,
    /// A byte is a character, ASCII below 128.
    Single(&'static [u16; 128]),
    /// A byte is a character, ASCII below 128 but for the letters of Swedish.
    Swe7,
    /// One to four bytes are a character, ASCII below 128.
    Multi(&'static MultiByte),
    /// UTF-16, most significant byte first or last; without surrogates it is UCS-2.
    Utf16 { read: fn([u8; 2]) -> u16, surrogates: bool },
    /// UTF-32, most significant byte first.
    Utf32,
}

charsets! {
    Armscii8 "armscii8" 1 Form::Single(&single::ARMSCII8);
    Ascii "ascii" 1 Form::Single(&[0; 128]);
    Big5 "big5" 2 Form::Multi(&multi::BIG5);
    Binary "binary" 1 Form::Binary;
    Cp1250 "cp1250" 1 Form::Single(&single::CP1250);
    Cp1251 "cp1251" 1 Form::Single(&single::CP1251);
    Cp1256 "cp1256" 1 Form::Single(&single::CP1256);
    Cp1257 "cp1257" 1 Form::Single(&single::CP1257);
    Cp850 "cp850" 1 Form::Single(&single::CP850);
    Cp852 "cp852" 1 Form::Single(&single::CP852);
    Cp866 "cp866" 1 Form::Single(&single::CP866);
    Cp932 "cp932" 2 Form::Multi(&multi::CP932);
    Dec8 "dec8" 1 Form::Single(&single::DEC8);
    Eucjpms "eucjpms" 3 Form::Multi(&multi::EUCJPMS);
    Euckr "euckr" 2 Form::Multi(&multi::EUCKR);
    Gb18030 "gb18030" 4 Form::Multi(&multi::GB18030);
    Gb2312 "gb2312" 2 Form::Multi(&multi::GB2312);
    Gbk "gbk" 2 Form::Multi(&multi::GBK);
    Geostd8 "geostd8" 1 Form::Single(&single::GEOSTD8);
    Greek "greek" 1 Form::Single(&single::GREEK);
    Hebrew "hebrew" 1 Form::Single(&single::HEBREW);
    Hp8 "hp8" 1 Form::Single(&single::HP8);
    Keybcs2 "keybcs2" 1 Form::Single(&single::KEYBCS2);
    Koi8r "koi8r" 1 Form::Single(&single::KOI8R);
    Koi8u "koi8u" 1 Form::Single(&single::KOI8U);
    Latin1 "latin1" 1 Form::Single(&single::LATIN1);
    Latin2 "latin2" 1 Form::Single(&single::LATIN2);
    Latin5 "latin5" 1 Form::Single(&single::LATIN5);
    Latin7 "latin7" 1 Form::Single(&single::LATIN7);
    Macce "macce" 1 Form::Single(&single::MACCE);
    Macroman "macroman" 1 Form::Single(&single::MACROMAN);
    Sjis "sjis" 2 Form::Multi(&multi::SJIS);
    Swe7 "swe7" 1 Form::Swe7;
    Tis620 "tis620" 1 Form::Single(&single::TIS620);
    Ucs2 "ucs2" 2 Form::Utf16 { read: u16::from_be_bytes, surrogates: false };
    Ujis "ujis" 3 Form::Multi(&multi::UJIS);
    Utf16 "utf16" 4 Form::Utf16 { read: u16::from_be_bytes, surrogates: true };
    Utf16le "utf16le" 4 Form::Utf16 { read: u16::from_le_bytes, surrogates: true };
    Utf32 "utf32" 4 Form::Utf32;
    Utf8mb3 "utf8mb3" 3 Form::Utf8;
    Utf8mb4 "utf8mb4" 4 Form::Utf8;
}

impl Charset {
    /// The character set of a collation id of MySQL or MariaDB.
    pub(crate) fn from_collation(id: u16) -> Option<Self> {
        collation::charset(id)
    }

    /// True if bytes are their own text as long as they are UTF-8, without any buffer.
    pub(crate) fn is_utf8(self) -> bool {
        matches!(self, Charset::Utf8mb4 | Charset::Utf8mb3)
    }

    /// The text of `bytes`: themselves where they are UTF-8 already, else transcoded into `scratch`, whose content is
    /// replaced.
    #[inline]
    pub(crate) fn decode<'a>(&self, bytes: &'a [u8], scratch: &'a mut String) -> ValueResult<&'a str> {
        match self.form() {
            Form::Utf8 => return std::str::from_utf8(bytes).map_err(|_| NOT_TEXT),
            Form::Single(_) | Form::Multi(_) if bytes.is_ascii() => return std::str::from_utf8(bytes).map_err(|_| NOT_TEXT),
            Form::Binary => return Err(ValueError::new("a text column has the binary character set")),
            _ => {}
        }
        scratch.clear();
        self.transcode(bytes, scratch)?;
        Ok(scratch)
    }

    /// Appends the text of `bytes`.
    fn transcode(self, bytes: &[u8], out: &mut String) -> ValueResult<()> {
        match self.form() {
            Form::Binary | Form::Utf8 => out.push_str(std::str::from_utf8(bytes).map_err(|_| NOT_TEXT)?),
            Form::Single(upper) => {
                for byte in bytes {
                    out.push(match byte.checked_sub(128) {
                        None => char::from(*byte),
                        Some(upper_half) => character(upper[usize::from(upper_half)])?,
                    });
                }
            }
            Form::Swe7 => {
                for byte in bytes {
                    out.push(swe7(*byte).ok_or(NOT_TEXT)?);
                }
            }
            Form::Multi(set) => set.decode(bytes, out)?,
            Form::Utf16 { read, surrogates } => {
                let (units, rest) = bytes.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(NOT_TEXT);
                }
                for character in char::decode_utf16(units.iter().map(|unit| read(*unit))) {
                    let character = character.map_err(|_| NOT_TEXT)?;
                    if !surrogates && character.len_utf16() > 1 {
                        return Err(NOT_TEXT);
                    }
                    out.push(character);
                }
            }
            Form::Utf32 => {
                let (units, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(NOT_TEXT);
                }
                for unit in units {
                    out.push(char::from_u32(u32::from_be_bytes(*unit)).ok_or(NOT_TEXT)?);
                }
            }
        }
        Ok(())
    }
}

/// The character of an entry of a table, where 0 is none: the NUL character is ASCII and in no table.
fn character(entry: u16) -> ValueResult<char> {
    char::from_u32(u32::from(entry)).filter(|character| *character != '\0').ok_or(NOT_TEXT)
}

/// Swedish ASCII: eleven codes are letters, and DEL is none.
fn swe7(byte: u8) -> Option<char> {
    Some(match byte {
        b'@' => 'É',
        b'[' => 'Ä',
        b'\\' => 'Ö',
        b']' => 'Å',
        b'^' => 'Ü',
        b'`' => 'é',
        b'{' => 'ä',
        b'|' => 'ö',
        b'}' => 'å',
        b'~' => 'ü',
        0x7f.. => return None,
        ascii => char::from(ascii),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::fmt::Write;
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    const COLLATIONS: &str = include_str!("../../../testdata/charsets/collations.txt");
    const SINGLE: &str = include_str!("../../../testdata/charsets/single.txt");
    const MULTI: &[u8] = include_bytes!("../../../testdata/charsets/multi.txt.gz");

    fn decode(charset: Charset, bytes: &[u8]) -> ValueResult<String> {
        charset.decode(bytes, &mut String::new()).map(str::to_owned)
    }

    /// The one character of a code.
    fn one(charset: Charset, code: &[u8]) -> Option<char> {
        let text = decode(charset, code).ok()?;
        let mut characters = text.chars();
        characters.next().filter(|_| characters.next().is_none())
    }

    /// The servers' answers for every code of every multi-byte character set.
    fn multi() -> Vec<(Charset, HashMap<Vec<u8>, char>)> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(MULTI).read_to_string(&mut text).unwrap();
        let mut answers: Vec<(Charset, HashMap<Vec<u8>, char>)> = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let first = words.next().unwrap();
            if first == "charset" {
                answers.push((Charset::from_name(words.next().unwrap()).unwrap(), HashMap::new()));
                continue;
            }
            let (length, mut code) = (first.len() / 2, u32::from_str_radix(first, 16).unwrap());
            for word in words {
                let (point, more) = word.split_once('+').unwrap_or((word, "0"));
                for i in 0..=u32::from_str_radix(more, 16).unwrap() {
                    let point = char::from_u32(u32::from_str_radix(point, 16).unwrap() + i).unwrap();
                    answers.last_mut().unwrap().1.insert(code.to_be_bytes()[4 - length..].to_vec(), point);
                    code += 1;
                }
            }
        }
        answers
    }

    #[test]
    fn every_collation_is_of_the_character_set_that_the_servers_say() {
        for line in COLLATIONS.lines() {
            let (id, name) = line.split_once(' ').unwrap();
            let charset = Charset::from_collation(id.parse().unwrap());
            assert_eq!(charset.map(Charset::name), Some(name), "collation {id}");
        }
        assert_eq!(Charset::from_collation(0), None);
        assert_eq!(Charset::from_collation(1023), None);
        assert_eq!(Charset::from_collation(u16::MAX), None);
    }

    #[test]
    fn every_byte_of_every_single_byte_set_is_what_the_servers_say() {
        let mut sets = 0;
        for line in SINGLE.lines() {
            let mut words = line.split(' ');
            let charset = Charset::from_name(words.next().unwrap()).unwrap();
            let servers = words.next().unwrap();
            let points: Vec<Option<u32>> = words.map(|point| u32::from_str_radix(point, 16).ok()).collect();
            assert_eq!(points.len(), 256);
            for (byte, expected) in (0..=255u8).zip(points) {
                assert_eq!(one(charset, &[byte]).map(u32::from), expected, "{charset:?} {byte:02x} on {servers}");
            }
            sets += 1;
        }
        assert_eq!(sets, Charset::ALL.iter().filter(|charset| matches!(charset.form(), Form::Single(_) | Form::Swe7)).count());
    }

    #[test]
    fn every_code_of_every_multi_byte_set_is_what_the_servers_say() {
        let answers = multi();
        assert_eq!(answers.len(), Charset::ALL.iter().filter(|charset| matches!(charset.form(), Form::Multi(_))).count());
        // What `exceptions.rs` would have to say, if it does not.
        let mut wrong = String::new();
        for (charset, expected) in answers {
            let mut check = |code: &[u8]| {
                let (found, expected) = (one(charset, code), expected.get(code).copied());
                if found != expected && wrong.len() < 10_000 {
                    writeln!(wrong, "{charset:?} {code:02x?}: {found:?} instead of {expected:?}").unwrap();
                }
            };
            for lead in 0..=255u8 {
                check(&[lead]);
                for trail in 0..=255u8 {
                    // Two characters of one byte each are no code of two.
                    if one(charset, &[lead]).is_none() {
                        check(&[lead, trail]);
                        check(&[0x8f, lead, trail]);
                    }
                }
            }
            for code in expected.keys().filter(|code| code.len() == 4) {
                check(code);
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    #[test]
    fn text_of_many_characters() {
        assert_eq!(decode(Charset::Latin1, b"na\xefve \x80\x81").unwrap(), "naïve €\u{81}");
        assert_eq!(decode(Charset::Sjis, b"a\\\x83\x5c\xb1").unwrap(), "a\\ソｱ");
        assert_eq!(decode(Charset::Ujis, b"\x8e\xb1\xa4\xa2\x8f\xb0\xa1z").unwrap(), "ｱあ丂z");
        assert_eq!(decode(Charset::Gb18030, b"\x81\x30\x81\x30\xc4\xe3\x95\x32\x82\x36a").unwrap(), "\u{80}你\u{20000}a");
        assert_eq!(decode(Charset::Utf16, &[0, b'a', 0xd8, 0x3d, 0xde, 0x00]).unwrap(), "a😀");
        assert_eq!(decode(Charset::Utf16le, &[b'a', 0, 0x3d, 0xd8, 0x00, 0xde]).unwrap(), "a😀");
        assert_eq!(decode(Charset::Utf32, &[0, 1, 0xf6, 0, 0, 0, 0, b'a']).unwrap(), "😀a");
        assert_eq!(decode(Charset::Ucs2, &[0x4e, 0x2d, 0, 0]).unwrap(), "中\0");
        assert_eq!(decode(Charset::Utf8mb4, "a😀".as_bytes()).unwrap(), "a😀");
    }

    #[test]
    fn bytes_that_mean_nothing_are_refused() {
        for (charset, bytes) in [
            (Charset::Utf8mb4, &b"\xff"[..]),
            (Charset::Utf8mb3, b"\xed\xa0\x80"),
            (Charset::Ascii, b"\x80"),
            (Charset::Ucs2, &[0xd8, 0x3d, 0xde, 0x00]),
            (Charset::Ucs2, b"a"),
            (Charset::Utf16, &[0xd8, 0x3d]),
            (Charset::Utf16, &[0xde, 0x00, 0, b'a']),
            (Charset::Utf32, &[0, 0x11, 0, 0]),
            (Charset::Utf32, &[0, 0, 1]),
            (Charset::Gbk, b"a\xc4"),
            (Charset::Gb18030, b"\x81\x30\x81"),
            (Charset::Sjis, b"\x83"),
            (Charset::Ujis, b"\x8f\xb0"),
            (Charset::Greek, b"\xd2"),
        ] {
            assert_eq!(decode(charset, bytes), Err(NOT_TEXT), "{charset:?}");
        }
        assert!(decode(Charset::Binary, b"a").is_err());
    }

    #[test]
    fn what_is_utf8_already_is_borrowed() {
        let mut scratch = String::from("untouched");
        for charset in [Charset::Utf8mb4, Charset::Utf8mb3, Charset::Ascii, Charset::Latin1, Charset::Gbk, Charset::Sjis, Charset::Koi8r] {
            let bytes = b"plain";
            assert!(std::ptr::eq(charset.decode(bytes, &mut scratch).unwrap().as_ptr(), bytes.as_ptr()), "{charset:?}");
        }
        assert_eq!(scratch, "untouched");
    }

    proptest! {
        #[test]
        fn any_bytes_are_text_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            for charset in Charset::ALL {
                let _ = decode(*charset, &bytes);
            }
        }

        #[test]
        fn text_of_the_basic_plane_survives_the_wide_sets(text in "[\u{1}-\u{d7ff}]{0,20}") {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            prop_assert_eq!(decode(Charset::Utf16, &utf16).unwrap(), text.clone());
            prop_assert_eq!(decode(Charset::Ucs2, &utf16).unwrap(), text);
        }
    }
}
