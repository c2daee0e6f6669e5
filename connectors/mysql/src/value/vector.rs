//! `VECTOR`: 32-bit floats, little-endian, one after the other (MySQL 9, MariaDB 11.7).

use super::{ValueError, ValueResult};

/// The floats of a vector, exactly as their bits are.
pub(crate) fn vector_floats(bytes: &[u8]) -> ValueResult<impl ExactSizeIterator<Item = f32> + '_> {
    let (floats, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(ValueError::new("a VECTOR value is not a whole number of floats"));
    }
    Ok(floats.iter().map(|float| f32::from_le_bytes(*float)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_its_floats() {
        let bytes: Vec<u8> = [1.5f32, -0.0, f32::MAX].iter().flat_map(|float| float.to_le_bytes()).collect();
        let floats: Vec<u32> = vector_floats(&bytes).unwrap().map(f32::to_bits).collect();
        assert_eq!(floats, [1.5f32.to_bits(), (-0.0f32).to_bits(), f32::MAX.to_bits()]);
        assert_eq!(vector_floats(&[]).unwrap().len(), 0);
        assert!(vector_floats(&[0; 5]).is_err());
    }
}
