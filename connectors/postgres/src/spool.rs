//! Where transactions wait that are not whole yet: in memory while they are small, else in a file.
//!
//! The file has no name, so nothing is left of it whatever ends the process, and what it holds is encrypted with a key that
//! is only in memory: a spool is written before masks have run, and clear values must not reach a disk.
//!
//! A record is its payload's length (`u32`), the subtransaction (`u32`), the place in the log (`u64`), all little-endian,
//! and the payload. Records are sealed in blocks by AES-256-GCM; a block is its length (`u32`) and its bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, BoundKey, NONCE_LEN, Nonce, NonceSequence, OpeningKey, SealingKey, UnboundKey};
use aws_lc_rs::error::Unspecified;
use logweir_core::{Error, Result};

use crate::lsn::Lsn;

/// A block is sealed and written when it has this size; a spool below it has no file.
const BLOCK_BYTES: usize = 256 * 1024;
const HEAD_BYTES: usize = 16;
/// The longest payload: a message of the server is shorter than this.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// Counts blocks: a key is used for one file only, so no nonce comes twice.
struct BlockNonces(u64);

impl NonceSequence for BlockNonces {
    fn advance(&mut self) -> Result<Nonce, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.0.to_le_bytes());
        self.0 += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

struct SpoolFile {
    file: File,
    key: [u8; 32],
    sealing: SealingKey<BlockNonces>,
}

/// Messages of one transaction, in order.
pub(crate) struct Spool {
    directory: Arc<PathBuf>,
    block: Vec<u8>,
    file: Option<SpoolFile>,
    extent: Extent,
}

/// What a spool holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The place of the first message.
    pub(crate) first: Option<Lsn>,
    pub(crate) messages: u64,
    /// Bytes of the messages.
    pub(crate) bytes: u64,
}

impl Spool {
    /// An empty spool, whose file, if it needs one, is made in `directory`.
    pub(crate) fn new(directory: Arc<PathBuf>) -> Self {
        Spool { directory, block: Vec::new(), file: None, extent: Extent::default() }
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, subtransaction: u32, lsn: Lsn, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| Error::corrupt("a message of the server is too long"))?;
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(&subtransaction.to_le_bytes());
        self.block.extend_from_slice(&lsn.0.to_le_bytes());
        self.block.extend_from_slice(payload);
        self.extent.first.get_or_insert(lsn);
        self.extent.messages += 1;
        self.extent.bytes += payload.len() as u64;
        if self.block.len() >= BLOCK_BYTES { self.write_block() } else { Ok(()) }
    }

    /// What it holds.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    fn write_block(&mut self) -> Result<()> {
        let failed = |directory: &Path, error: std::io::Error| {
            Error::transient("could not keep a transaction that is not whole yet on the disk")
                .context("directory", directory.display())
                .source(error)
                .remedy("make room there, or name another directory with spill: in the source's profile")
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                std::fs::create_dir_all(self.directory.as_path()).map_err(|error| failed(&self.directory, error))?;
                let file = tempfile::tempfile_in(self.directory.as_path()).map_err(|error| failed(&self.directory, error))?;
                let key: [u8; 32] = rand::random();
                none.insert(SpoolFile { file, key, sealing: SealingKey::new(unbound(&key)?, BlockNonces(0)) })
            }
        };
        file.sealing.seal_in_place_append_tag(Aad::empty(), &mut self.block).map_err(|_| broken())?;
        let length = u32::try_from(self.block.len()).map_err(|_| broken())?;
        let written = file.file.write_all(&length.to_le_bytes()).and_then(|()| file.file.write_all(&self.block));
        written.map_err(|error| failed(&self.directory, error))?;
        self.block.clear();
        self.block.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }

    /// The messages again, from the first.
    pub(crate) fn into_reader(self) -> Result<SpoolReader> {
        let file = self.file.map(|mut file| {
            file.file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            let opening = OpeningKey::new(unbound(&file.key)?, BlockNonces(0));
            Ok::<_, Error>((BufReader::with_capacity(BLOCK_BYTES, file.file), opening))
        });
        Ok(SpoolReader { file: file.transpose()?, last: self.block, block: Vec::new(), at: 0, until: 0 })
    }
}

/// A spool that is read.
pub(crate) struct SpoolReader {
    file: Option<(BufReader<File>, OpeningKey<BlockNonces>)>,
    /// What was never written.
    last: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    until: usize,
}

/// A message out of a spool.
pub(crate) struct Spooled<'a> {
    pub(crate) subtransaction: u32,
    pub(crate) lsn: Lsn,
    pub(crate) payload: &'a [u8],
}

impl SpoolReader {
    /// The message that the reader stands before; `None` behind the last. The same one until [`advance`](Self::advance).
    pub(crate) fn peek(&mut self) -> Result<Option<Spooled<'_>>> {
        while self.at >= self.until {
            if !self.next_block()? {
                return Ok(None);
            }
        }
        let (head, rest) = self.block[self.at..self.until].split_first_chunk::<HEAD_BYTES>().ok_or_else(broken)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let lsn = Lsn(u64::from(word(8)) | u64::from(word(12)) << 32);
        let payload = rest.get(..word(0) as usize).ok_or_else(broken)?;
        Ok(Some(Spooled { subtransaction: word(4), lsn, payload }))
    }

    /// Goes behind the message that [`peek`](Self::peek) gave.
    pub(crate) fn advance(&mut self) {
        if let Some(head) = self.block.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
            self.at += HEAD_BYTES + u32::from_le_bytes(*head) as usize;
        }
    }

    fn next_block(&mut self) -> Result<bool> {
        self.at = 0;
        let Some((file, opening)) = &mut self.file else {
            self.block = std::mem::take(&mut self.last);
            self.until = self.block.len();
            return Ok(self.until > 0);
        };
        let mut head = [0; 4];
        match file.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.file = None;
                self.until = 0;
                return self.next_block();
            }
            Err(error) => return Err(unreadable(error)),
        }
        let length = u32::from_le_bytes(head) as usize;
        if length > PAYLOAD_BYTES_MAX + 2 * BLOCK_BYTES {
            return Err(broken());
        }
        self.block.resize(length, 0);
        file.read_exact(&mut self.block).map_err(unreadable)?;
        self.until = opening.open_in_place(Aad::empty(), &mut self.block).map_err(|_| broken())?.len();
        Ok(true)
    }
}

fn unbound(key: &[u8; 32]) -> Result<UnboundKey> {
    UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::internal("a key of 32 bytes is a key"))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::transient("could not read again a transaction that waited on the disk").source(error)
}

fn broken() -> Error {
    Error::transient("a transaction that waited on the disk is not what was written there")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(mut reader: SpoolReader) -> Vec<(u32, u64, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(message) = reader.peek().unwrap() {
            messages.push((message.subtransaction, message.lsn.0, message.payload.to_vec()));
            reader.advance();
        }
        messages
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let place = Arc::new(directory.path().join("below"));
        for (count, length, on_disk) in [(0, 0, false), (3, 10, false), (5_000, 300, true), (3, 700_000, true)] {
            let mut spool = Spool::new(Arc::clone(&place));
            let expected: Vec<_> = (0..count).map(|i| (i % 3, 0x1_2345_6789 + u64::from(i), vec![i as u8; length])).collect();
            for (subtransaction, lsn, payload) in &expected {
                spool.push(*subtransaction, Lsn(*lsn), payload).unwrap();
            }
            assert_eq!(spool.file.is_some(), on_disk);
            assert_eq!(read(spool.into_reader().unwrap()), expected);
        }
        // Nothing has a name.
        assert_eq!(std::fs::read_dir(place.as_path()).unwrap().count(), 0);
    }

    #[test]
    fn the_disk_holds_nothing_clear() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(Arc::new(directory.path().to_owned()));
        for _ in 0..40_000 {
            spool.push(1, Lsn(1), b"ada@example.com").unwrap();
        }
        let file = &mut spool.file.as_mut().unwrap().file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() > 2 * BLOCK_BYTES);
        assert!(!bytes.windows(15).any(|window| window == b"ada@example.com"));
    }
}
