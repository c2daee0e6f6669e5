//! Checked reads from a slice: bytes of a log may be anything, so nothing here can go past the end or panic.
//!
//! A cursor is the rest of the slice. Each read takes from its front or says [`Truncated`] and takes nothing; the caller knows
//! what was being read and turns that into an error with its place.

/// The bytes end before the value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truncated;

/// What is left of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

macro_rules! little_endian {
    ($($name:ident: $type:ty, $bytes:literal;)*) => {
        $(#[doc = concat!("A little-endian `", stringify!($type), "`.")]
        #[inline]
        pub(crate) fn $name(&mut self) -> Result<$type, Truncated> {
            self.array::<$bytes>().map(<$type>::from_le_bytes)
        })*
    };
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    /// What has not been read.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number of bytes that have not been read.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn skip(&mut self, length: usize) -> Result<(), Truncated> {
        self.rest = self.rest.get(length..).ok_or(Truncated)?;
        Ok(())
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        let (first, rest) = self.rest.split_first().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    little_endian! {
        u16: u16, 2;
        u32: u32, 4;
        u64: u64, 8;
        i8: i8, 1;
        i16: i16, 2;
        i32: i32, 4;
        i64: i64, 8;
        f32: f32, 4;
        f64: f64, 8;
    }

    /// A little-endian 24-bit unsigned integer.
    #[inline]
    pub(crate) fn u24(&mut self) -> Result<u32, Truncated> {
        let [a, b, c] = self.array::<3>()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// A little-endian 24-bit signed integer.
    #[inline]
    pub(crate) fn i24(&mut self) -> Result<i32, Truncated> {
        let [a, b, c] = self.array::<3>()?;
        Ok(i32::from_le_bytes([0, a, b, c]) >> 8)
    }

    /// A little-endian 48-bit unsigned integer: a table id.
    #[inline]
    pub(crate) fn u48(&mut self) -> Result<u64, Truncated> {
        let [a, b, c, d, e, f] = self.array::<6>()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// A little-endian unsigned integer of 1 to 8 bytes.
    #[inline]
    pub(crate) fn uint(&mut self, length: usize) -> Result<u64, Truncated> {
        let mut bytes = [0; 8];
        let taken = self.take(length)?;
        bytes.get_mut(..length).ok_or(Truncated)?.copy_from_slice(taken);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A length-encoded ("packed") integer of the client/server protocol.
    pub(crate) fn packed(&mut self) -> Result<u64, Truncated> {
        match self.u8()? {
            first @ 0..=250 => Ok(u64::from(first)),
            252 => self.u16().map(u64::from),
            253 => self.u24().map(u64::from),
            254 => self.u64(),
            // 251 is NULL and 255 an error packet: neither is a length.
            251 | 255 => Err(Truncated),
        }
    }

    /// A packed integer that counts bytes or things in memory.
    pub(crate) fn packed_len(&mut self) -> Result<usize, Truncated> {
        self.packed().and_then(|length| usize::try_from(length).map_err(|_| Truncated))
    }

    /// Bytes behind their packed length.
    pub(crate) fn packed_bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.packed_len()?;
        self.take(length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width() {
        let mut cursor = Cursor::new(&[1, 0xff, 0xff, 2, 0, 0x80, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3, 4, 5, 6, 0xaa, 0xbb]);
        assert_eq!(cursor.u8(), Ok(1));
        assert_eq!(cursor.i16(), Ok(-1));
        assert_eq!(cursor.u24(), Ok(0x80_0002));
        assert_eq!(cursor.i24(), Ok(-1));
        assert_eq!(cursor.i8(), Ok(0x7f));
        assert_eq!(cursor.u48(), Ok(0x0605_0403_0201));
        assert_eq!(cursor.uint(2), Ok(0xbbaa));
        assert!(cursor.is_empty());
    }

    #[test]
    fn a_read_past_the_end_takes_nothing() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert_eq!(cursor.u32(), Err(Truncated));
        assert_eq!(cursor.take(4), Err(Truncated));
        assert_eq!(cursor.skip(usize::MAX), Err(Truncated));
        assert_eq!(cursor.uint(9), Err(Truncated));
        assert_eq!((cursor.rest(), cursor.len()), (&[1, 2, 3][..], 3));
    }

    #[test]
    fn packed_integers() {
        for (bytes, expected) in [
            (&[250][..], Ok(250)),
            (&[252, 0xff, 1], Ok(511)),
            (&[253, 1, 0, 1], Ok(65537)),
            (&[254, 1, 0, 0, 0, 0, 0, 0, 0x80], Ok(0x8000_0000_0000_0001)),
            (&[251], Err(Truncated)),
            (&[255], Err(Truncated)),
            (&[252, 1], Err(Truncated)),
            (&[], Err(Truncated)),
        ] {
            assert_eq!(Cursor::new(bytes).packed(), expected, "{bytes:?}");
        }
        assert_eq!(Cursor::new(&[2, b'a', b'b', b'c']).packed_bytes(), Ok(&b"ab"[..]));
    }
}
