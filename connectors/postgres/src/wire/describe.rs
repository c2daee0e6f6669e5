//! What the rows of a statement would be, without running it.

use logweir_core::{Error, Result};
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::failure::ServerError;
use super::message::{self, ColumnDescription};

const DESCRIBING: &str = "the server does not understand the statement";

impl Connection {
    /// The columns of a statement's rows; `None` if it has no rows. An error if it is not one statement, or has parameters.
    pub async fn describe(&mut self, sql: &str) -> Result<Option<Vec<ColumnDescription>>> {
        self.put(|outbox| {
            frontend::parse("", sql, [], outbox)?;
            frontend::describe(b'S', "", outbox)?;
            frontend::sync(outbox);
            Ok(())
        })
        .await?;
        let (mut columns, mut parameters) = (None, false);
        loop {
            let frame = self.next().await?;
            match frame.tag {
                message::PARSE_COMPLETE | message::NO_DATA => {}
                message::PARAMETER_DESCRIPTION => parameters = message::has_parameters(frame)?,
                message::ROW_DESCRIPTION => columns = Some(message::columns(frame)?),
                message::READY_FOR_QUERY => {
                    self.busy = false;
                    if parameters {
                        return Err(Error::config("the statement has placeholders").remedy("write values in the place of each $1"));
                    }
                    return Ok(columns);
                }
                message::ERROR_RESPONSE => {
                    let error = ServerError::parse(frame)?;
                    return Err(self.fail(DESCRIBING, error).await);
                }
                tag => return Err(message::unexpected(tag, "the description of a statement")),
            }
        }
    }
}
