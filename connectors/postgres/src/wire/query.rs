//! Questions, and their answers as text.

use logweir_core::Result;

use super::connection::Connection;
use super::failure::ServerError;
use super::message;

const ASKING: &str = "could not run a statement on the server";

/// The rows that a statement returned, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The values of each row; a null is `None`.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// A value; `None` if it is null or there is no such row or column.
    pub fn get(&self, row: usize, column: usize) -> Option<&str> {
        self.rows.get(row)?.get(column)?.as_deref()
    }

    /// The first value of the first row; `None` if it is null or there is none.
    pub fn first(&self) -> Option<&str> {
        self.get(0, 0)
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Connection {
    /// Runs one or several statements, and returns the rows of the last one that has any.
    pub async fn query(&mut self, sql: &str) -> Result<Rows> {
        self.ask(sql).await?;
        let mut answer = Rows::default();
        loop {
            let frame = self.next().await?;
            match frame.tag {
                message::ROW_DESCRIPTION => answer = Rows { columns: message::column_names(frame)?, rows: Vec::new() },
                message::DATA_ROW => answer.rows.push(message::row_values(frame)?),
                message::COMMAND_COMPLETE | message::EMPTY_QUERY_RESPONSE => {}
                message::READY_FOR_QUERY => {
                    self.busy = false;
                    return Ok(answer);
                }
                message::ERROR_RESPONSE => {
                    let error = ServerError::parse(frame)?;
                    return Err(self.fail(ASKING, error).await);
                }
                tag => return Err(message::unexpected(tag, "the answer to a statement")),
            }
        }
    }
}
