//! `ENUM` and `SET`: numbers in the row, labels in the table definition.

use super::{ValueError, ValueResult};

/// The label of an `ENUM` index. Index 0 is the empty string that the server stores for a value it refused
/// (without strict mode).
pub(crate) fn enum_label(index: u16, labels: &[String]) -> ValueResult<&str> {
    match index {
        0 => Ok(""),
        _ => labels.get(usize::from(index) - 1).map(String::as_str).ok_or(ValueError::new("an ENUM index has no label")),
    }
}

/// Appends the labels of a `SET` as the server shows them: in the order of their definition, joined by commas.
pub(crate) fn write_set(bits: u64, labels: &[String], out: &mut String) -> ValueResult<()> {
    // `checked_shr` is `None` for 64 labels, where no bit is left over.
    if u32::try_from(labels.len()).ok().and_then(|count| bits.checked_shr(count)).is_some_and(|rest| rest != 0) {
        return Err(ValueError::new("a SET bit has no label"));
    }
    let mut separator = "";
    for (place, label) in labels.iter().enumerate().take(64) {
        if bits >> place & 1 == 1 {
            out.push_str(separator);
            out.push_str(label);
            separator = ",";
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|place| format!("l{place}")).collect()
    }

    fn set(bits: u64, count: usize) -> ValueResult<String> {
        let mut out = String::new();
        write_set(bits, &labels(count), &mut out).map(|()| out)
    }

    #[test]
    fn an_enum_index_counts_from_one() {
        assert_eq!(enum_label(0, &labels(2)), Ok(""));
        assert_eq!(enum_label(1, &labels(2)), Ok("l0"));
        assert_eq!(enum_label(2, &labels(2)), Ok("l1"));
        assert!(enum_label(3, &labels(2)).is_err());
    }

    #[test]
    fn a_set_is_its_labels_in_the_order_of_definition() {
        assert_eq!(set(0, 3).unwrap(), "");
        assert_eq!(set(0b101, 3).unwrap(), "l0,l2");
        assert_eq!(set(1 << 63, 64).unwrap(), "l63");
        assert_eq!(set(u64::MAX, 64).unwrap().split(',').count(), 64);
        assert!(set(0b1000, 3).is_err());
        assert!(set(1, 0).is_err());
    }
}
