//! COPY TO STDOUT: what a table holds, in runs of bytes.

use logweir_core::{Error, Result};

use super::connection::Connection;
use super::failure::ServerError;
use super::frame::READ_BYTES;
use super::message;

const COPYING: &str = "could not copy from the server";

/// A COPY that is under way. Dropped before its end it leaves the connection unusable.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    ended: bool,
}

impl Connection {
    /// Runs `COPY … TO STDOUT`.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.ask(sql).await?;
        let frame = self.next().await?;
        match frame.tag {
            message::COPY_OUT_RESPONSE => Ok(CopyOut { connection: self, ended: false }),
            message::ERROR_RESPONSE => {
                let error = ServerError::parse(frame)?;
                Err(self.fail(COPYING, error).await)
            }
            message::ROW_DESCRIPTION | message::COMMAND_COMPLETE | message::EMPTY_QUERY_RESPONSE => {
                Err(Error::internal("the statement is no COPY TO STDOUT"))
            }
            tag => Err(message::unexpected(tag, "the start of a copy")),
        }
    }
}

impl CopyOut<'_> {
    /// Replaces what `buffer` holds with what arrived next, about 256 KiB at most unless a single row is larger; false at the
    /// end. Runs are cut between messages of the server, which for a binary COPY are rows, header and trailer.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        while !self.ended {
            let channel = &mut self.connection.channel;
            while let Some(message::COPY_DATA) = channel.inbox.next_tag()? {
                let Some(frame) = channel.inbox.take()? else { break };
                buffer.extend_from_slice(frame.body);
                if buffer.len() >= READ_BYTES {
                    return Ok(true);
                }
            }
            // What came is handed out before more is waited for, and before the end is looked at.
            if !buffer.is_empty() {
                return Ok(true);
            }
            let frame = self.connection.next().await?;
            match frame.tag {
                message::COPY_DATA => buffer.extend_from_slice(frame.body),
                message::COPY_DONE | message::COMMAND_COMPLETE => {}
                message::READY_FOR_QUERY => {
                    self.connection.busy = false;
                    self.ended = true;
                }
                message::ERROR_RESPONSE => {
                    let error = ServerError::parse(frame)?;
                    self.ended = true;
                    return Err(self.connection.fail(COPYING, error).await);
                }
                tag => return Err(message::unexpected(tag, "the rows of a copy")),
            }
        }
        Ok(false)
    }
}
