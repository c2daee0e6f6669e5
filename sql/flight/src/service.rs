//! What is asked, and the answer.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, SqlSupportedTransaction,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use chrono::DateTime;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use logweir_core::{Error, TimestampMicros};
use logweir_sql::{ClientSession, PreparedQuery};
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::{Catalog, TABLE_TYPES};
use crate::identity::Identity;
use crate::prepared::Statement;
use crate::rows::{Asked, on_a_place, plan, run};
use crate::server::Shared;
use crate::status;

/// Rows of an answer are cut into messages of about so much.
const MESSAGE_BYTES: usize = 2 << 20;

/// Names and values of the parameters of a statement, as bytes of their messages.
const VALUES_BYTES_MAX: usize = 4 << 20;

/// What a request may say of the catalog and the schema that names without one belong to.
const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";
/// As the settings of those names at PostgreSQL's protocol.
const AS_OF: &str = "logweir.as_of";
const FOLLOW: &str = "logweir.follow";

type Answer = Response<BoxStream<'static, Result<arrow_flight::FlightData, Status>>>;

/// What the server says of itself.
static ABOUT: LazyLock<Result<SqlInfoData, String>> = LazyLock::new(|| {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "logweir");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    // That of the format: https://arrow.apache.org/docs/format/Columnar.html
    about.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    about.append(SqlInfo::FlightSqlServerReadOnly, true);
    about.append(SqlInfo::FlightSqlServerSql, true);
    about.append(SqlInfo::FlightSqlServerSubstrait, false);
    about.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    about.append(SqlInfo::FlightSqlServerCancel, false);
    about.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    about.build().map_err(|error| error.to_string())
});

fn about() -> Result<&'static SqlInfoData, Status> {
    ABOUT.as_ref().map_err(Status::internal)
}

/// Flight SQL over the tables of a database.
pub(crate) struct FlightSql {
    shared: Arc<Shared>,
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Status {
    status::of(&Error::internal("the answer could not be written").source(error))
}

fn read_only() -> Status {
    Status::invalid_argument("the statement does more than read: everything here is read-only")
}

fn no_such_statement() -> Status {
    Status::not_found("there is no such prepared statement: it was closed, or it made way for others")
}

/// Who asks, as the gate has found out.
fn identity<T>(request: &Request<T>) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().copied().ok_or_else(|| Status::unauthenticated("nobody is known to ask"))
}

fn header(metadata: &MetadataMap, name: &'static str) -> Result<Option<String>, Status> {
    let Some(value) = metadata.get(name) else { return Ok(None) };
    let value = value.to_str().map_err(|_| Status::invalid_argument(format!("the header {name} is no text")))?;
    Ok(Some(value.to_owned()).filter(|value| !value.is_empty()))
}

impl FlightSql {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        FlightSql { shared: Arc::clone(shared) }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.statement_timeout
    }

    fn asked<T>(&self, request: &Request<T>) -> Result<(Identity, Asked), Status> {
        let (identity, metadata) = (identity(request)?, request.metadata());
        let client = ClientSession {
            user: self.shared.users.get(identity).name.clone(),
            database: header(metadata, CATALOG)?,
            schema: header(metadata, SCHEMA)?,
            ..ClientSession::default()
        };
        let as_of = header(metadata, AS_OF)?
            .map(|text| {
                let moment = DateTime::parse_from_rfc3339(&text);
                moment
                    .map(|moment| TimestampMicros(moment.timestamp_micros()))
                    .map_err(|_| Status::invalid_argument(format!("the header {AS_OF} is no time: write it as 2026-11-20T10:00:00Z")))
            })
            .transpose()?;
        let follow = match header(metadata, FOLLOW)?.as_deref() {
            None | Some("off" | "false") => false,
            Some("on" | "true") => true,
            Some(_) => return Err(Status::invalid_argument(format!("the header {FOLLOW} is `on` or `off`"))),
        };
        Ok((identity, Asked { client, as_of, follow }))
    }

    async fn plan<T>(&self, request: &Request<T>, text: &str, deadline: Instant) -> Result<(PreparedQuery, OwnedSemaphorePermit), Status> {
        let (identity, asked) = self.asked(request)?;
        plan(&self.shared, identity, text, asked, deadline).await
    }

    async fn run<T>(&self, request: &Request<T>, statement: &Statement) -> Result<Answer, Status> {
        let deadline = self.deadline();
        let planned = self.plan(request, &statement.text, deadline).await?;
        let missing = planned.0.parameters().len();
        if missing != statement.values.len() {
            return Err(Status::invalid_argument(format!("the statement has {missing} parameters, and {} values", statement.values.len())));
        }
        let rows = run(&self.shared, planned, &statement.values, deadline)?;
        Ok(answer(rows.schema, rows.batches))
    }

    /// Looks at what there is.
    async fn look<T, R, W>(&self, request: &Request<T>, look: impl FnOnce(Catalog) -> W + Send + 'static) -> Result<R, Status>
    where
        R: Send + 'static,
        W: Future<Output = logweir_core::Result<R>> + Send,
    {
        let (identity, asked) = self.asked(request)?;
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let catalog = Catalog::open(&shared, &shared.users.get(identity).schemas, asked.client).await?;
            look(catalog).await
        };
        on_a_place(&self.shared, self.deadline(), work).await.map(|(found, _place)| found)
    }

    fn statement<T>(&self, request: &Request<T>, handle: &[u8]) -> Result<Statement, Status> {
        self.shared.statements.get(identity(request)?, handle).ok_or_else(no_such_statement)
    }
}

/// Where an answer is to be had: here, by showing the ticket.
fn info(schema: &Schema, ticket: &impl ProstMessageExt, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(broken)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

fn answer(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static) -> Answer {
    let batches = batches.map_err(|status| FlightError::Tonic(Box::new(status)));
    let encoded = FlightDataEncoderBuilder::new()
        .with_max_flight_data_size(MESSAGE_BYTES)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_schema(schema)
        .build(batches)
        .map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            error => broken(error),
        });
    Response::new(encoded.boxed())
}

fn answer_one(batch: Result<RecordBatch, FlightError>) -> Result<Answer, Status> {
    let batch = batch.map_err(flight)?;
    Ok(answer(batch.schema(), stream::iter([Ok(batch)])))
}

fn flight(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        error => broken(error),
    }
}

/// The schema as a message, as prepared statements are described.
fn described(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(broken)?;
    Ok(message.0)
}

/// The parameters as columns; one whose type the statement leaves open has none.
fn parameters(query: &PreparedQuery) -> Schema {
    let fields = query.parameters().iter().enumerate();
    Schema::new(
        fields.map(|(index, kind)| Field::new(format!("${}", index + 1), kind.clone().unwrap_or(DataType::Null), true)).collect::<Vec<_>>(),
    )
}

/// One array of one row for each parameter.
fn values(query: &PreparedQuery, batch: &RecordBatch) -> Result<Vec<ArrayRef>, Status> {
    let wanted = query.parameters();
    if batch.num_rows() != 1 {
        return Err(Status::invalid_argument(format!("a query takes one row of parameters at a time, not {}", batch.num_rows())));
    }
    if batch.num_columns() != wanted.len() {
        return Err(Status::invalid_argument(format!("the statement has {} parameters, and {} values", wanted.len(), batch.num_columns())));
    }
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(wanted).enumerate();
    let cast = |(index, (column, kind)): (usize, (&ArrayRef, &Option<DataType>))| match kind {
        Some(kind) if kind != column.data_type() => cast_with_options(column, kind, &exactly)
            // Without its cause, which quotes the value.
            .map_err(|_| Status::invalid_argument(format!("the value of ${} is no {kind}", index + 1))),
        _ => Ok(Arc::clone(column)),
    };
    columns.map(cast).collect()
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let token = self.shared.users.token(identity(&request)?);
        let said = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut response = Response::new(stream::iter([Ok(said)]).boxed() as _);
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| Status::internal("a token is no header"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (planned, _place) = self.plan(&request, &query.query, self.deadline()).await?;
        let ticket = TicketStatementQuery { statement_handle: query.query.into() };
        info(&planned.schema(), &ticket, request.into_inner())
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<Answer, Status> {
        let text =
            String::from_utf8(ticket.statement_handle.to_vec()).map_err(|_| Status::invalid_argument("the ticket is not one of ours"))?;
        self.run(&request, &Statement { text, values: Vec::new() }).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let (planned, _place) = self.plan(&request, &query.query, self.deadline()).await?;
        let statement = Statement { text: query.query, values: Vec::new() };
        let handle = self
            .shared
            .statements
            .add(identity(&request)?, statement)
            .ok_or_else(|| Status::resource_exhausted("the statement is too long"))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.to_vec().into(),
            dataset_schema: described(&planned.schema())?,
            parameter_schema: described(&parameters(&planned))?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.shared.statements.close(identity(&request)?, &query.prepared_statement_handle);
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let deadline = self.deadline();
        let identity = identity(&request)?;
        let statement = self.statement(&request, &query.prepared_statement_handle)?;
        let (planned, place) = self.plan(&request, &statement.text, deadline).await?;
        drop(place);
        let mut bytes = 0;
        let messages = request.into_inner().map(move |message| {
            let message = message?;
            bytes += message.data_body.len() + message.data_header.len();
            match bytes <= VALUES_BYTES_MAX {
                true => Ok(message),
                false => Err(FlightError::Tonic(Box::new(Status::resource_exhausted("the parameters are too long")))),
            }
        });
        let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
        let late = || Status::deadline_exceeded("the parameters have not come within the statement timeout");
        let mut rows = None;
        while let Some(batch) = timeout_at(deadline, batches.next()).await.map_err(|_| late())? {
            let batch = batch.map_err(flight)?;
            if batch.num_rows() > 0 && rows.replace(batch).is_some() {
                return Err(Status::invalid_argument("a query takes one row of parameters at a time"));
            }
        }
        let values = match rows {
            Some(batch) => values(&planned, &batch)?,
            None => Vec::new(),
        };
        if !self.shared.statements.bind(identity, &query.prepared_statement_handle, values) {
            return Err(no_such_statement());
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.statement(&request, &query.prepared_statement_handle)?;
        let (planned, _place) = self.plan(&request, &statement.text, self.deadline()).await?;
        let planned = planned.bind(&statement.values).map_err(|error| status::of(&error))?;
        info(&planned.schema(), &query, request.into_inner())
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Result<Answer, Status> {
        let statement = self.statement(&request, &query.prepared_statement_handle)?;
        self.run(&request, &statement).await
    }

    async fn do_put_statement_update(
        &self,
        _ticket: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _query: CommandPreparedStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(read_only())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> Result<Answer, Status> {
        let mut catalogs = query.into_builder();
        self.shared.database.names().into_iter().for_each(|name| catalogs.append(name));
        answer_one(catalogs.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Result<Answer, Status> {
        let catalog = query.catalog.clone();
        let schemas = self.look(&request, move |there| async move { there.schemas(catalog.as_deref()).await }).await?;
        let mut builder = query.into_builder();
        schemas.iter().for_each(|name| builder.append(&name.catalog, &name.schema));
        answer_one(builder.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Result<Answer, Status> {
        let catalog = query.catalog.clone();
        if !query.include_schema {
            let tables = self.look(&request, move |there| async move { there.tables(catalog.as_deref()).await }).await?;
            let mut builder = query.into_builder();
            let empty = Schema::empty();
            for table in &tables {
                builder.append(&table.schema.catalog, &table.schema.schema, &table.table, table.kind, &empty).map_err(flight)?;
            }
            return answer_one(builder.build());
        }
        let wanted = query.clone();
        let look = move |there: Catalog| async move {
            let mut found = Vec::new();
            for table in there.tables(wanted.catalog.as_deref()).await? {
                // The names first: of columns there is more to be looked at.
                let mut names = CommandGetTables { include_schema: false, ..wanted.clone() }.into_builder();
                let named = names.append(&table.schema.catalog, &table.schema.schema, &table.table, table.kind, &Schema::empty());
                let named =
                    named.and_then(|()| names.build()).map_err(|error| Error::internal("a name could not be written").source(error))?;
                if named.num_rows() > 0 {
                    found.push((there.columns(&table).await?, table));
                }
            }
            Ok(found)
        };
        let tables = self.look(&request, look).await?;
        let mut builder = query.into_builder();
        for (columns, table) in &tables {
            builder.append(&table.schema.catalog, &table.schema.schema, &table.table, table.kind, columns).map_err(flight)?;
        }
        answer_one(builder.build())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _request: Request<Ticket>) -> Result<Answer, Status> {
        let mut builder = query.into_builder();
        TABLE_TYPES.into_iter().for_each(|kind| builder.append(kind));
        answer_one(builder.build())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&query.clone().into_builder(about()?).schema(), &query, request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> Result<Answer, Status> {
        answer_one(query.into_builder(about()?).build())
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&keys_schema(), &query, request.into_inner())
    }

    async fn do_get_primary_keys(&self, _query: CommandGetPrimaryKeys, _request: Request<Ticket>) -> Result<Answer, Status> {
        // Tables are declared without constraints here, as at PostgreSQL's protocol.
        answer_one(Ok(RecordBatch::new_empty(keys_schema())))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&references_schema(), &query, request.into_inner())
    }

    async fn do_get_exported_keys(&self, _query: CommandGetExportedKeys, _request: Request<Ticket>) -> Result<Answer, Status> {
        answer_one(Ok(RecordBatch::new_empty(references_schema())))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&references_schema(), &query, request.into_inner())
    }

    async fn do_get_imported_keys(&self, _query: CommandGetImportedKeys, _request: Request<Ticket>) -> Result<Answer, Status> {
        answer_one(Ok(RecordBatch::new_empty(references_schema())))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&references_schema(), &query, request.into_inner())
    }

    async fn do_get_cross_reference(&self, _query: CommandGetCrossReference, _request: Request<Ticket>) -> Result<Answer, Status> {
        answer_one(Ok(RecordBatch::new_empty(references_schema())))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

/// Columns of the answer to `CommandGetPrimaryKeys`, of the protocol's description.
fn keys_schema() -> SchemaRef {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ]))
}

/// Columns of the answers about foreign keys, of the protocol's description.
fn references_schema() -> SchemaRef {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

const _: fn() = || {
    fn serves<T: FlightService>() {}
    serves::<FlightSql>();
};
