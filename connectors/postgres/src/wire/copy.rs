//! COPY TO STDOUT: what a table holds, row by row.

use logweir_core::{Error, Result};

use super::connection::Connection;
use super::failure::ServerError;
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
    /// What arrived next, as it lies in the buffer that the socket was read into: of a binary COPY a row, the header or the
    /// trailer, because servers send them one by one. `None` at the end.
    pub async fn next(&mut self) -> Result<Option<&[u8]>> {
        if !self.fill().await? {
            return Ok(None);
        }
        Ok(self.connection.channel.inbox.take()?.map(|frame| frame.body))
    }

    /// Waits until rows come next; false at the end.
    async fn fill(&mut self) -> Result<bool> {
        while !self.ended {
            let tag = self.connection.channel.next_tag().await?;
            if tag == message::COPY_DATA {
                return Ok(true);
            }
            let Some(frame) = self.connection.channel.inbox.take()? else { continue };
            match tag {
                tag if message::is_aside(tag) => message::note(frame, &mut self.connection.parameters)?,
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
