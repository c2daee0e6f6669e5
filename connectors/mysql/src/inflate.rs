//! Takes compression off recorded files, a bounded piece at a time: a small input may not become a large allocation.

use std::io::Write;

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// Compression of a recorded file, by the end of its name.
pub(crate) enum Inflate {
    /// None.
    Plain,
    /// `.zst`
    Zstd {
        /// The state between two pieces.
        decoder: Box<Decoder<'static>>,
        /// True between two frames, where a file may end.
        at_end: bool,
    },
    /// `.gz`
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Inflate {
    /// The compression of the file `name`, and the name without its mark.
    pub(crate) fn of(name: &str) -> std::io::Result<(Self, &str)> {
        if let Some(name) = name.strip_suffix(".zst") {
            return Ok((Inflate::Zstd { decoder: Box::new(Decoder::new()?), at_end: true }, name));
        }
        if let Some(name) = name.strip_suffix(".gz") {
            return Ok((Inflate::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))), name));
        }
        Ok((Inflate::Plain, name))
    }

    /// Takes input from the front and appends what it stands for to `output`, until one of both is used up: `output` grows to
    /// about `output_bytes`. Returns the bytes taken. What did not fit comes with the next call, which may bring no input.
    pub(crate) fn push(&mut self, input: &[u8], output: &mut Vec<u8>, output_bytes: usize) -> std::io::Result<usize> {
        let mut taken = 0;
        match self {
            Inflate::Plain => {
                taken = input.len().min(output_bytes.saturating_sub(output.len()));
                output.extend_from_slice(input.get(..taken).unwrap_or_default());
            }
            Inflate::Zstd { at_end: true, .. } if input.is_empty() => {}
            Inflate::Zstd { decoder, at_end } => {
                let filled = output.len();
                output.resize(output_bytes.max(filled), 0);
                let mut source = InBuffer::around(input);
                let mut target = OutBuffer::around_pos(output.as_mut_slice(), filled);
                while target.pos() < target.capacity() {
                    let before = (source.pos, target.pos());
                    let wanted = decoder.run(&mut source, &mut target)?;
                    if (source.pos, target.pos()) == before {
                        break;
                    }
                    *at_end = wanted == 0;
                }
                taken = source.pos;
                let filled = target.pos();
                output.truncate(filled);
            }
            Inflate::Gzip(decoder) => {
                // A single write gives out no more than the decoder's own small buffer.
                while taken < input.len() && output.len() < output_bytes {
                    taken += decoder.write(input.get(taken..).unwrap_or_default())?;
                    output.append(decoder.get_mut());
                }
            }
        }
        Ok(taken)
    }

    /// What is left when all input was pushed; an error if the file ends too early.
    pub(crate) fn finish(&mut self, output: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Inflate::Plain | Inflate::Zstd { at_end: true, .. } => Ok(()),
            Inflate::Zstd { at_end: false, .. } => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Inflate::Gzip(decoder) => {
                decoder.try_finish()?;
                output.append(decoder.get_mut());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn inflate(name: &str, bytes: &[u8], piece: usize, output_bytes: usize) -> std::io::Result<Vec<u8>> {
        let (mut inflate, _) = Inflate::of(name)?;
        let mut whole = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut at = 0;
            loop {
                let mut output = Vec::new();
                let taken = inflate.push(&piece[at..], &mut output, output_bytes)?;
                assert!(output.len() <= output_bytes + 64 * 1024, "{}", output.len());
                at += taken;
                let idle = output.is_empty() && taken == 0;
                whole.extend(output);
                if at == piece.len() && idle {
                    break;
                }
            }
        }
        inflate.finish(&mut whole)?;
        Ok(whole)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let zstd = zstd::encode_all(bytes.as_slice(), 3).unwrap();
        let two_frames = [zstd::encode_all(&bytes[..1000], 3).unwrap(), zstd::encode_all(&bytes[1000..], 3).unwrap()].concat();
        let two_members = [gzip(&bytes[..1000]), gzip(&bytes[1000..])].concat();
        for piece in [100, 4096, 1 << 20] {
            for output_bytes in [1000, 1 << 20] {
                assert_eq!(inflate("a.000001", &bytes, piece, output_bytes).unwrap(), bytes);
                assert_eq!(inflate("a.000001.zst", &zstd, piece, output_bytes).unwrap(), bytes);
                assert_eq!(inflate("a.000001.zst", &two_frames, piece, output_bytes).unwrap(), bytes);
                assert_eq!(inflate("a.000001.gz", &gzip(&bytes), piece, output_bytes).unwrap(), bytes);
                assert_eq!(inflate("a.000001.gz", &two_members, piece, output_bytes).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn files_that_end_too_early_are_refused() {
        let zstd = zstd::encode_all(&[7; 100_000][..], 3).unwrap();
        assert!(inflate("a.1.zst", &zstd[..zstd.len() - 3], 4096, 1 << 20).is_err());
        let gzip = gzip(&[7; 100_000]);
        assert!(inflate("a.1.gz", &gzip[..gzip.len() - 12], 4096, 1 << 20).is_err());
        assert!(inflate("a.1.zst", b"not zstd at all, but long enough", 4096, 1 << 20).is_err());
    }
}
