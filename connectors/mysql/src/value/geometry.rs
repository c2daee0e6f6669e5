//! Geometries: a spatial reference system, then WKB that every reader of geometries knows.

use super::{ValueError, ValueResult};

const SHORT: ValueError = ValueError::new("a geometry is shorter than its parts");
const LONG: ValueError = ValueError::new("a geometry is longer than its parts");
const ORDER: ValueError = ValueError::new("a geometry has an unknown byte order");
const KIND: ValueError = ValueError::new("a geometry is of an unknown kind");
const DEEP: ValueError = ValueError::new("a geometry is nested deeper than any");

/// Bytes of a pair of coordinates.
const POINT: usize = 16;
/// Geometry collections in geometry collections: far more than any real one, few enough for the stack.
const DEPTH_MAX: u32 = 64;

/// The SRID and the WKB of a value, whose parts are checked to be all there and nothing more.
pub(crate) fn split_geometry(bytes: &[u8]) -> ValueResult<(u32, &[u8])> {
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or(SHORT)?;
    if geometry(wkb, 0)?.is_empty() { Ok((u32::from_le_bytes(*srid), wkb)) } else { Err(LONG) }
}

/// Walks one geometry and returns what follows it. Every step takes at least one byte, so that this ends.
fn geometry(wkb: &[u8], depth: u32) -> ValueResult<&[u8]> {
    if depth > DEPTH_MAX {
        return Err(DEEP);
    }
    let (&order, rest) = wkb.split_first().ok_or(SHORT)?;
    let number: fn([u8; 4]) -> u32 = match order {
        0 => u32::from_be_bytes,
        1 => u32::from_le_bytes,
        _ => return Err(ORDER),
    };
    let take = |bytes: &'_ [u8]| bytes.split_first_chunk::<4>().map(|(head, _)| number(*head)).ok_or(SHORT);
    let kind = take(rest)?;
    let mut rest = &rest[4..];
    if kind == 1 {
        return rest.get(POINT..).ok_or(SHORT);
    }
    let count = take(rest)?;
    rest = &rest[4..];
    let points = |bytes: &'_ [u8], count: u32| (count as usize).checked_mul(POINT).filter(|length| *length <= bytes.len()).ok_or(SHORT);
    match kind {
        2 => Ok(&rest[points(rest, count)?..]),
        3 => {
            for _ in 0..count {
                let length = take(rest)?;
                rest = &rest[4..];
                rest = &rest[points(rest, length)?..];
            }
            Ok(rest)
        }
        4..=7 => {
            for _ in 0..count {
                rest = geometry(rest, depth + 1)?;
            }
            Ok(rest)
        }
        _ => Err(KIND),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u32) -> Vec<u8> {
        [&[1u8][..], &kind.to_le_bytes()].concat()
    }

    fn point() -> Vec<u8> {
        [header(1), vec![7; 16]].concat()
    }

    fn several(kind: u32, parts: &[Vec<u8>]) -> Vec<u8> {
        [header(kind), (parts.len() as u32).to_le_bytes().to_vec(), parts.concat()].concat()
    }

    fn check(wkb: &[u8]) -> ValueResult<()> {
        let value = [&4326u32.to_le_bytes()[..], wkb].concat();
        let (srid, found) = split_geometry(&value)?;
        assert_eq!((srid, found), (4326, wkb));
        Ok(())
    }

    #[test]
    fn every_kind_is_walked_to_its_end() {
        let line = several(2, &[vec![0; 16], vec![1; 16]]);
        let ring = [3u32.to_le_bytes().to_vec(), vec![0; 48]].concat();
        let polygon = several(3, &[ring.clone(), ring]);
        for wkb in [
            point(),
            line.clone(),
            polygon.clone(),
            several(4, &[point(), point()]),
            several(5, std::slice::from_ref(&line)),
            several(6, std::slice::from_ref(&polygon)),
            several(7, &[]),
            several(7, &[point(), line, several(7, &[polygon])]),
        ] {
            assert_eq!(check(&wkb), Ok(()));
            assert_eq!(check(&wkb[..wkb.len() - 1]), Err(SHORT));
            assert_eq!(check(&[&wkb[..], &[0]].concat()), Err(LONG));
        }
        // POINT(1 2), big-endian.
        assert_eq!(check(&[&[0u8, 0, 0, 0, 1][..], &[0; 16]].concat()), Ok(()));
    }

    #[test]
    fn what_is_no_geometry_is_refused() {
        assert_eq!(split_geometry(&[]), Err(SHORT));
        assert_eq!(split_geometry(&[0; 4]), Err(SHORT));
        assert_eq!(check(&[2, 1, 0, 0, 0]), Err(ORDER));
        assert_eq!(check(&several(8, &[])), Err(KIND));
        assert_eq!(check(&[header(2), vec![0xff; 4]].concat()), Err(SHORT));
        let mut nested = point();
        for _ in 0..=DEPTH_MAX {
            nested = several(7, &[nested]);
        }
        assert_eq!(check(&nested), Err(DEEP));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_geometry_or_an_error(bytes in proptest::collection::vec(0u8..9, 0..200)) {
            let _ = split_geometry(&bytes);
        }
    }
}
