//! Makes what the configuration names: an arm per kind of source, destination and state store.
//!
//! Reading this file tells every connector there is. Making one opens nothing.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{BackfillProgress, Error, LogMark, Pattern, Relation, Result, Sink, Source, StateStore, TableFilter, Transform};
use logweir_files::{FilesOptions, FilesSink, open_store, store_error};
use logweir_mysql::files::BinlogFilesSource;
use logweir_mysql::options::{BinlogFilesOptions, MysqlOptions};
use logweir_mysql::source::MysqlSource;
use logweir_postgres::options::PostgresOptions;
use logweir_postgres::source::PostgresSource;
use logweir_runtime::changelog::segment::{SegmentOptions, SegmentStore};
use logweir_runtime::state::{LocalStateStore, ObjectStateStore};
use logweir_runtime::{Acknowledge, ChangeLogSpec, StreamSpec, TransformFactory};
use logweir_sql::{
    BadValue, ColumnNames, DateUnit, MaskKey, MaskKeys, MaskKind, MaskRule, MaskTransform, References, SchemaChange, SharedTruncate,
    SqlContext, SqlProblem, SqlRule, SqlTransform, UdfRule, UdfTransform, mask_functions,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::config::{
    self, Backfill, ChangeLog, ChangeLogOptions, Config, Destination, Loaded, MaskWith, MysqlFiles, MysqlTlsMode, OnBadValue, OptionValue,
    PostgresTlsMode, Profile, Reference, Secret, Start, State, Stream,
};

/// The SQL of a destination, to be made for each that goes through changes.
#[derive(Clone)]
pub(crate) struct DestinationSql {
    rules: Arc<[SqlRule]>,
    context: SqlContext,
}

impl DestinationSql {
    /// Makes it, over these reference tables.
    pub(crate) fn with(&self, references: &References) -> Result<SqlTransform> {
        sql_transform(self.rules.to_vec(), SqlContext { references: references.clone(), ..self.context.clone() })
    }

    /// False if no rule joins a reference table of this name. It may be true of a rule that has the word for something else.
    pub(crate) fn mentions(&self, reference: &str) -> bool {
        let word = reference.to_lowercase();
        self.rules.iter().any(|rule| rule.sql.to_lowercase().contains(&word))
    }
}

/// What a stream with transforms needs beside its configuration.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// The tables that they look values up in.
    pub(crate) references: References,
    /// The followed tables as they are now, after the masks, where a transform shall bear columns that are not there.
    pub(crate) known: Vec<Arc<Relation>>,
}

impl Loaded {
    /// The configuration's streams and what a stream is made of.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A stream, by its name.
    pub(crate) fn stream(&self, name: &str) -> Result<&Stream> {
        let stream = self.config.streams.iter().find(|(known, _)| known.0 == name).map(|(_, stream)| stream);
        stream.ok_or_else(|| Error::config("there is no such stream").context("stream", name))
    }

    /// A profile, by its name.
    pub(crate) fn profile(&self, name: &str) -> Result<&Profile> {
        let profile = self.config.profiles.iter().find(|(known, _)| known.0 == name).map(|(_, profile)| profile);
        profile.ok_or_else(|| Error::config("there is no such profile").context("profile", name))
    }

    /// The source of a stream.
    pub(crate) fn source(&self, name: &str) -> Result<Arc<dyn Source>> {
        let stream = self.stream(name)?;
        self.source_of(&stream.source, Some((name, stream)))
    }

    /// The source of a profile, for looking at it: without the stream that would say where its log begins.
    pub(crate) fn profile_source(&self, profile: &str) -> Result<Arc<dyn Source>> {
        self.source_of(profile, None)
    }

    /// The source of a stream that keeps something for it at its server; `None` for the other kinds.
    pub(crate) fn postgres_source(&self, name: &str) -> Result<Option<PostgresSource>> {
        let stream = self.stream(name)?;
        match self.profile(&stream.source)? {
            Profile::Postgres(postgres) => Ok(Some(PostgresSource::new(self.postgres_options(postgres, Some((name, stream)))?))),
            _ => Ok(None),
        }
    }

    /// How far the reading of the rows that were there before the log was at a mark of a stream; `None` if none are wanted.
    pub(crate) fn backfill(&self, name: &str, mark: &LogMark) -> Result<Option<BackfillProgress>> {
        match self.profile(&self.stream(name)?.source)? {
            Profile::Postgres(_) => logweir_postgres::backfill_progress(mark),
            _ => Ok(None),
        }
    }

    fn source_of(&self, profile: &str, stream: Option<(&str, &Stream)>) -> Result<Arc<dyn Source>> {
        let start = stream.and_then(|(_, stream)| stream.start.as_ref());
        match self.profile(profile)? {
            Profile::Mysql(mysql) => Ok(Arc::new(MysqlSource::new(self.mysql_options(mysql, start)?))),
            Profile::MysqlFiles(files) => Ok(Arc::new(BinlogFilesSource::new(self.binlog_files_options(files, start)?))),
            Profile::Postgres(postgres) => Ok(Arc::new(PostgresSource::new(self.postgres_options(postgres, stream)?))),
            other => Err(Error::config("the profile is no source").context("profile", profile).context("kind", other.kind())),
        }
    }

    /// The sink of a stream's destination.
    pub(crate) fn sink(&self, stream: &str, destination: &Destination) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(FilesSink::new(self.files_options(stream, destination)?)?))
    }

    /// Where and how a stream's destination has its files.
    pub(crate) fn files_options(&self, stream: &str, destination: &Destination) -> Result<FilesOptions> {
        match self.profile(&destination.profile)? {
            Profile::Files(files) => {
                let mut options = FilesOptions::new(parse_url(&files.url)?, stream);
                options.options = self.store_options(&files.options)?;
                options.path = destination.path.clone();
                options.rotate_interval = destination.rotate.interval.0;
                options.rotate_bytes = destination.rotate.size.0;
                options.before_images = before_images(self.stream(stream)?);
                Ok(options)
            }
            other => {
                Err(Error::config("the profile is no destination").context("profile", &destination.profile).context("kind", other.kind()))
            }
        }
    }

    /// The state store of a stream.
    pub(crate) fn state(&self, stream: &str) -> Result<Box<dyn StateStore>> {
        match &self.config.state {
            State::Directory { dir } => Ok(Box::new(LocalStateStore::new(self.directory.join(dir), stream)?)),
            State::Bucket { url, options } => {
                let url = parse_url(url)?;
                // A local disk has no conditional put; it has locks.
                if url.scheme() == "file" {
                    return Ok(Box::new(LocalStateStore::new(local_path(&url)?, stream)?));
                }
                let (store, prefix) = open_store(&url, &self.store_options(options)?)?;
                Ok(Box::new(ObjectStateStore::new(store, &prefix, stream)?))
            }
            State::Postgres { .. } => Err(Error::config("state in PostgreSQL is not available yet")),
        }
    }

    /// The directory that state is kept in, if it is one of this machine.
    pub(crate) fn state_directory(&self) -> Option<PathBuf> {
        match &self.config.state {
            State::Directory { dir } => Some(self.directory.join(dir)),
            State::Bucket { url, .. } => parse_url(url).ok().and_then(|url| local_path(&url).ok()),
            State::Postgres { .. } => None,
        }
    }

    /// The store behind a files destination, for reading what was landed.
    pub(crate) fn landed_store(&self, destination: &Destination) -> Result<(Url, Arc<dyn ObjectStore>, object_store::path::Path)> {
        match self.profile(&destination.profile)? {
            Profile::Files(files) => {
                let url = parse_url(&files.url)?;
                let (store, prefix) = open_store(&url, &self.store_options(&files.options)?)?;
                Ok((url, store, prefix))
            }
            other => {
                Err(Error::config("the profile is no destination").context("profile", &destination.profile).context("kind", other.kind()))
            }
        }
    }

    /// The mask of a stream, if it has rules.
    pub(crate) fn mask(&self, stream: &Stream) -> Result<Option<MaskTransform>> {
        let rules = self.mask_rules(stream)?;
        if rules.is_empty() && !refuses_unlisted(stream) {
            return Ok(None);
        }
        mask_transform(rules, refuses_unlisted(stream)).map(Some)
    }

    fn mask_rules(&self, stream: &Stream) -> Result<Vec<MaskRule>> {
        let key = |mask: &config::Mask| match &mask.key {
            Some(config::MaskKey::Secret(secret)) => Ok(MaskKey::from(self.secret(secret)?)),
            Some(config::MaskKey::Named(id)) => {
                let (name, secret) = self.config.keys.iter().find(|(name, _)| name.0 == *id).ok_or_else(|| {
                    // Not repeated: somebody may have written the key itself.
                    Error::config("there is no key of the id that a mask names").remedy("add it to `keys`")
                })?;
                Ok(MaskKey { id: Some(name.0.clone()), secret: self.secret(secret)? })
            }
            None => Err(Error::config("a mask needs a key").context("mask", mask.with.name())),
        };
        let rule = |mask: &config::Mask| {
            let with = match mask.with {
                MaskWith::Hash => MaskKind::Hash { key: key(mask)? },
                MaskWith::Partial => MaskKind::Partial,
                MaskWith::Email => MaskKind::Email,
                MaskWith::Null => MaskKind::Null,
                MaskWith::Keep => MaskKind::Keep,
                MaskWith::Tokenize => MaskKind::Tokenize { key: key(mask)? },
                MaskWith::Date => {
                    let to = mask.to.ok_or_else(|| Error::config("masking with date needs to"))?;
                    MaskKind::Date { to: date_unit(to) }
                }
                MaskWith::Number => match (mask.round, mask.noise) {
                    (Some(step), None) => MaskKind::Round { step: step.to_string().parse().map_err(Error::config)? },
                    (None, Some(share)) => MaskKind::Noise { share, key: key(mask)? },
                    _ => return Err(Error::config("masking with number needs either round or noise")),
                },
            };
            let names = mask.names.as_deref().map(ColumnNames::new).transpose().map_err(Error::config)?;
            let columns = mask.columns.iter().map(|pattern| Pattern::new(&pattern.0)).collect();
            Ok(MaskRule { columns, names, types: mask.types.iter().map(Pattern::new).collect(), with })
        };
        stream.mask.rules().iter().map(rule).collect()
    }

    /// The keys that masks in SQL may name.
    pub(crate) fn mask_keys(&self) -> Result<MaskKeys> {
        let keys = self.config.keys.iter().map(|(id, secret)| Ok((id.0.clone(), self.secret(secret)?)));
        MaskKeys::new(keys.collect::<Result<Vec<_>>>()?)
    }

    /// The functions of a stream, if it has rules.
    pub(crate) fn udf(&self, stream: &Stream) -> Result<Option<UdfTransform>> {
        let rules = self.udf_rules(stream)?;
        if rules.is_empty() { Ok(None) } else { UdfTransform::new(rules, bad_value(stream)).map(Some) }
    }

    fn udf_rules(&self, stream: &Stream) -> Result<Vec<UdfRule>> {
        stream.udf.iter().map(|udf| udf.rule(&self.directory)).collect()
    }

    /// The SQL of a stream, if it has rules. What is wrong with a rule on its face was found when the file was read.
    /// `known` are tables as they are now, after the masks.
    pub(crate) fn sql(&self, stream: &Stream, references: &References, known: &[Arc<Relation>]) -> Result<Option<SqlTransform>> {
        let (rules, context) = self.sql_rules(stream, &stream.transforms, references, known)?;
        if rules.is_empty() { Ok(None) } else { sql_transform(rules, context).map(Some) }
    }

    /// The same for what a destination makes of it.
    pub(crate) fn destination_sql(
        &self,
        stream: &Stream,
        destination: &Destination,
        references: &References,
    ) -> Result<Option<SqlTransform>> {
        self.destination_rules(stream, destination)?.map(|sql| sql.with(references)).transpose()
    }

    fn sql_rules(
        &self,
        stream: &Stream,
        transforms: &[config::SqlRule],
        references: &References,
        known: &[Arc<Relation>],
    ) -> Result<(Vec<SqlRule>, SqlContext)> {
        let rule = |rule: &config::SqlRule| SqlRule {
            table: Pattern::new(&rule.table.0),
            sql: rule.sql.clone(),
            into: rule.into.clone(),
            key: rule.key.clone(),
            unresolved: rule.unresolved.into(),
            schema_change: match rule.schema_change {
                config::SchemaChange::Fail => SchemaChange::Fail,
                config::SchemaChange::Null => SchemaChange::Null,
            },
            shared_truncate: match rule.shared_truncate {
                config::SharedTruncate::Fail => SharedTruncate::Fail,
                config::SharedTruncate::Ignore => SharedTruncate::Ignore,
            },
        };
        let functions = mask_functions(&self.mask_keys()?);
        let (references, known) = (references.clone(), known.to_vec());
        let before_images = before_images(stream);
        let context = SqlContext { functions, references, known, bad_value: bad_value(stream), before_images, behind_sql: false };
        Ok((transforms.iter().map(rule).collect(), context))
    }

    /// Where a reference table that is a file lies.
    pub(crate) fn reference_store(&self, reference: &Reference) -> Result<Option<(Arc<dyn ObjectStore>, object_store::path::Path)>> {
        match reference {
            Reference::Path { path, .. } => {
                let path = plain(&self.directory.join(path));
                let location = object_store::path::Path::from_absolute_path(&path).map_err(|error| {
                    Error::config("the path of a reference table cannot be used").context("path", path.display()).source(error)
                })?;
                Ok(Some((Arc::new(LocalFileSystem::new()), location)))
            }
            Reference::Bucket { url, options, .. } => open_store(&parse_url(url)?, &self.store_options(options)?).map(Some),
            Reference::Query { .. } => Ok(None),
        }
    }

    /// Everything that the runtime needs to run a stream.
    pub(crate) fn spec(&self, name: &str, memory_bytes: usize, until_caught_up: bool, extra: &Extra) -> Result<StreamSpec> {
        let stream = self.stream(name)?;
        let (masks, refuses_unlisted) = (self.mask_rules(stream)?, refuses_unlisted(stream));
        let (udfs, udf_bad_value) = (self.udf_rules(stream)?, bad_value(stream));
        let (rules, context) = self.sql_rules(stream, &stream.transforms, &extra.references, &extra.known)?;
        let wanted_images = if rules.is_empty() { Vec::new() } else { sql_transform(rules.clone(), context.clone())?.before_images() };
        let transforms: TransformFactory = Arc::new(move || {
            let mut transforms: Vec<Box<dyn Transform>> = Vec::new();
            if !masks.is_empty() || refuses_unlisted {
                transforms.push(Box::new(mask_transform(masks.clone(), refuses_unlisted)?));
            }
            if !udfs.is_empty() {
                transforms.push(Box::new(UdfTransform::new(udfs.clone(), udf_bad_value)?));
            }
            if !rules.is_empty() {
                transforms.push(Box::new(sql_transform(rules.clone(), context.clone())?));
            }
            Ok(transforms)
        });
        // Made once here, so that a rule that cannot be stops the start, not the stream.
        transforms()?;
        let destinations = stream
            .destinations
            .iter()
            .map(|destination| {
                let sink = self.sink(name, destination)?;
                let transforms = self.destination_transforms(stream, destination, extra)?;
                Ok(logweir_runtime::Destination { name: destination.name().to_owned(), sink, transforms })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(StreamSpec {
            name: name.to_owned(),
            source: self.source(name)?,
            tables: table_filter(stream),
            before_images: wanted_images,
            keep_before_images: before_images(stream),
            transforms,
            rules: self.rules(name, stream)?,
            destinations,
            change_log: self.change_log(name)?,
            state: self.state(name)?,
            memory_bytes,
            connect_timeout: self.connect_timeout(stream),
            until_caught_up,
            seed: rand::random(),
        })
    }

    /// Stands for all that decides what becomes of a change before it is kept: which tables and columns, masks, functions, transforms.
    pub(crate) fn rules(&self, name: &str, stream: &Stream) -> Result<String> {
        let mut digest = Sha256::new();
        digest.update(self.rules_text(name));
        for udf in self.udf_rules(stream)? {
            digest.update(udf.script.len().to_le_bytes());
            digest.update(udf.script);
        }
        let digest = digest.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What happens to changes on their way from the change log to a destination.
    pub(crate) fn destination_transforms(&self, stream: &Stream, destination: &Destination, extra: &Extra) -> Result<TransformFactory> {
        let Some(sql) = self.destination_rules(stream, destination)? else {
            return Ok(logweir_runtime::no_transforms());
        };
        let references = extra.references.clone();
        sql.with(&references)?;
        Ok(Arc::new(move || Ok(vec![Box::new(sql.with(&references)?) as Box<dyn Transform>])))
    }

    /// The SQL of a destination, if it has rules.
    pub(crate) fn destination_rules(&self, stream: &Stream, destination: &Destination) -> Result<Option<DestinationSql>> {
        if destination.transforms.is_empty() {
            return Ok(None);
        }
        let (rules, context) = self.sql_rules(stream, &destination.transforms, &References::default(), &[])?;
        let context = SqlContext { behind_sql: !stream.transforms.is_empty(), ..context };
        Ok(Some(DestinationSql { rules: rules.into(), context }))
    }

    /// Where the changes of a stream are kept on their way; `None` if in memory only.
    pub(crate) fn change_log(&self, name: &str) -> Result<Option<ChangeLogSpec>> {
        use logweir_runtime::changelog::segment::Compression;
        let stream = self.stream(name)?;
        let acknowledge = match stream.acknowledge {
            config::Acknowledge::Destination => Acknowledge::Destination,
            config::Acknowledge::Log => Acknowledge::Log,
        };
        let options = match &stream.change_log {
            Some(ChangeLog::Memory) => None,
            Some(ChangeLog::Disk(options)) => Some(options.clone()),
            None => self.state_directory().map(|_| ChangeLogOptions::default()),
        };
        let Some(options) = options else {
            if acknowledge == Acknowledge::Log {
                return Err(Error::config("`acknowledge: log` needs a change log on disk")
                    .context("stream", name)
                    .remedy("say where with `change_log: { dir: … }`"));
            }
            return Ok(None);
        };
        let directory = match (&options.dir, self.state_directory()) {
            (Some(dir), _) => self.directory.join(dir),
            (None, Some(state)) => state.join(name).join("log"),
            (None, None) => {
                return Err(Error::config("the change log needs a directory, because the state is in a bucket")
                    .context("stream", name)
                    .remedy("say where with `change_log: { dir: … }`"));
            }
        };
        let store = options.url.as_ref().map(|url| self.segment_store(url, &options.options, &directory)).transpose()?;
        let segments = SegmentOptions {
            directory,
            store,
            cache_bytes: options.cache.0,
            compression: match options.compression {
                config::Compression::None => Compression::None,
                config::Compression::Lz4 => Compression::Lz4,
                config::Compression::Zstd => Compression::Zstd,
            },
            retain_age: options.retain.age.0,
            retain_bytes: options.retain.size.0,
        };
        Ok(Some(ChangeLogSpec { segments, acknowledge }))
    }

    fn segment_store(&self, url: &str, options: &BTreeMap<String, OptionValue>, directory: &Path) -> Result<SegmentStore> {
        let url = parse_url(url)?;
        let folder = if url.scheme() == "file" { Some(local_path(&url)?) } else { None };
        if let Some(folder) = folder.as_ref().map(|folder| plain(folder)) {
            let directory = plain(directory);
            if folder.starts_with(&directory) || directory.starts_with(&folder) {
                return Err(Error::config("the change log's url and its directory are the same place")
                    .context("url", url)
                    .context("directory", directory.display())
                    .remedy("let change_log.dir be a directory of its own, or leave change_log.url out"));
            }
        }
        let (store, prefix) = open_store(&url, &self.store_options(options)?)?;
        Ok(SegmentStore::new(store, prefix, folder, |error, doing, path| store_error(error, doing, path)))
    }

    /// The store of a stream's change log, if it has one.
    pub(crate) fn change_log_url(&self, name: &str) -> Option<&str> {
        match &self.stream(name).ok()?.change_log {
            Some(ChangeLog::Disk(options)) => options.url.as_deref(),
            _ => None,
        }
    }

    /// What looks at that store as at a destination's; `None` if it has none.
    pub(crate) fn change_log_probe(&self, name: &str) -> Result<Option<FilesSink>> {
        let Some(ChangeLog::Disk(ChangeLogOptions { url: Some(url), options, .. })) = &self.stream(name)?.change_log else {
            return Ok(None);
        };
        let mut files = FilesOptions::new(parse_url(url)?, name);
        files.options = self.store_options(options)?;
        FilesSink::new(files).map(Some)
    }

    fn connect_timeout(&self, stream: &Stream) -> Duration {
        let own = match self.profile(&stream.source) {
            Ok(Profile::Mysql(mysql)) => mysql.connect_timeout,
            Ok(Profile::Postgres(postgres)) => postgres.connect_timeout,
            _ => None,
        };
        own.unwrap_or(self.config.connect_timeout).0
    }

    fn mysql_options(&self, mysql: &config::Mysql, start: Option<&Start>) -> Result<MysqlOptions> {
        use logweir_mysql::options::{TlsMode, TlsOptions};
        let mode = |mode| match mode {
            MysqlTlsMode::Disable => Ok(TlsMode::Disable),
            MysqlTlsMode::Prefer => Err(Error::config("`prefer` is not available for MySQL")),
            MysqlTlsMode::Require => Ok(TlsMode::Require),
            MysqlTlsMode::VerifyCa => Ok(TlsMode::VerifyCa),
            MysqlTlsMode::VerifyFull => Ok(TlsMode::VerifyFull),
        };
        let tls = match &mysql.tls {
            Some(tls) => TlsOptions {
                mode: mode(tls.mode)?,
                ca: self.path(tls.ca.as_ref()),
                cert: self.path(tls.cert.as_ref()),
                key: self.path(tls.key.as_ref()),
            },
            None => TlsOptions::default(),
        };
        Ok(MysqlOptions {
            host: mysql.host.clone(),
            port: mysql.port,
            user: mysql.user.clone(),
            password: mysql.password.as_ref().map(|secret| self.secret(secret)).transpose()?,
            server_id: mysql.server_id,
            tls,
            connect_timeout: mysql.connect_timeout.unwrap_or(self.config.connect_timeout).0,
            start: start.map_or(Ok(logweir_mysql::options::Start::Now), mysql_start)?,
        })
    }

    fn postgres_options(&self, postgres: &config::Postgres, stream: Option<(&str, &Stream)>) -> Result<PostgresOptions> {
        use logweir_postgres::options::{Arrays, Origin, Streaming, TlsMode, TlsOptions, default_name};
        let mode = |mode| match mode {
            PostgresTlsMode::Disable => TlsMode::Disable,
            PostgresTlsMode::Prefer => TlsMode::Prefer,
            PostgresTlsMode::Require => TlsMode::Require,
            PostgresTlsMode::VerifyCa => TlsMode::VerifyCa,
            PostgresTlsMode::VerifyFull => TlsMode::VerifyFull,
        };
        let tls = postgres.tls.as_ref().map_or_else(TlsOptions::default, |tls| TlsOptions {
            mode: mode(tls.mode),
            ca: self.path(tls.ca.as_ref()),
            cert: self.path(tls.cert.as_ref()),
            key: self.path(tls.key.as_ref()),
        });
        let mut options = PostgresOptions::new(&postgres.host, &postgres.user, &postgres.database);
        options.port = postgres.port;
        options.password = postgres.password.as_ref().map(|secret| self.secret(secret)).transpose()?;
        options.create = postgres.create;
        options.tls = tls;
        options.connect_timeout = postgres.connect_timeout.unwrap_or(self.config.connect_timeout).0;
        options.streaming = match postgres.streaming {
            config::Streaming::Off => Streaming::Off,
            config::Streaming::On => Streaming::On,
            config::Streaming::Parallel => Streaming::Parallel,
        };
        options.two_phase = postgres.two_phase;
        options.origin = match postgres.origin {
            config::Origin::Any => Origin::Any,
            config::Origin::None => Origin::None,
        };
        options.binary = postgres.binary;
        options.failover = postgres.failover;
        options.arrays = match postgres.arrays {
            config::Arrays::List => Arrays::List,
            config::Arrays::Text => Arrays::Text,
        };
        options.max_retained_wal = postgres.max_retained_wal.map(|size| size.0);
        options.heartbeat = postgres.heartbeat.map(|span| span.0);
        if let Some(slot) = &postgres.slot {
            options.slot.clone_from(slot);
        }
        if let Some(publication) = &postgres.publication {
            options.publication.clone_from(publication);
        }
        let Some((name, stream)) = stream else { return Ok(options) };
        if postgres.slot.is_none() {
            options.slot = default_name(name);
        }
        if postgres.publication.is_none() {
            options.publication = default_name(name);
        }
        options.start = stream.start.as_ref().map_or(Ok(logweir_postgres::options::Start::Now), postgres_start)?;
        options.backfill = postgres_backfill(&stream.backfill);
        // A directory each, so that a stream may clear what an earlier process of it left behind.
        options.spill = match self.path(postgres.spill.as_ref()) {
            Some(directory) => Some(directory.join(name)),
            None => self.state_directory().map(|directory| directory.join(name).join("spill")),
        };
        Ok(options)
    }

    /// A path of the configuration.
    fn path(&self, path: Option<&PathBuf>) -> Option<PathBuf> {
        path.map(|path| self.directory.join(path))
    }

    fn binlog_files_options(&self, files: &MysqlFiles, start: Option<&Start>) -> Result<BinlogFilesOptions> {
        let (store, pattern) = match files {
            MysqlFiles::Path { path } => {
                let path = plain(&self.directory.join(path));
                let text = path.to_str().ok_or_else(|| Error::config("the path of the binlog files is not UTF-8"))?;
                let (folder, pattern) = split_pattern(text);
                let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| {
                    Error::config("could not open the directory of the binlog files").context("directory", folder).source(error)
                })?;
                (Arc::new(store) as Arc<dyn ObjectStore>, pattern.to_owned())
            }
            MysqlFiles::Bucket { url, options } => {
                let (folder, pattern) = split_pattern(url);
                let (store, prefix) = open_store(&parse_url(folder)?, &self.store_options(options)?)?;
                let pattern = if prefix.as_ref().is_empty() { pattern.to_owned() } else { format!("{prefix}/{pattern}") };
                (store, pattern)
            }
        };
        // A recording has no now: what it holds is what is wanted.
        Ok(BinlogFilesOptions { store, pattern, start: start.map_or(Ok(logweir_mysql::options::Start::Earliest), mysql_start)? })
    }

    fn store_options(&self, options: &BTreeMap<String, OptionValue>) -> Result<BTreeMap<String, String>> {
        let value = |value: &OptionValue| -> Result<String> {
            Ok(match value {
                OptionValue::Secret(secret) => self.secret(secret)?.expose_secret().to_owned(),
                OptionValue::Text(text) => text.clone(),
                OptionValue::Bool(value) => value.to_string(),
                OptionValue::Number(value) => value.to_string(),
            })
        };
        options.iter().map(|(name, option)| Ok((name.clone(), value(option)?))).collect()
    }

    fn secret(&self, secret: &Secret) -> Result<SecretString> {
        secret.resolve(&self.directory).map_err(Error::config)
    }
}

fn refuses_unlisted(stream: &Stream) -> bool {
    stream.mask.unlisted() == config::Unlisted::Fail
}

fn mask_transform(rules: Vec<MaskRule>, refuses_unlisted: bool) -> Result<MaskTransform> {
    let transform = MaskTransform::new(rules)?;
    Ok(if refuses_unlisted { transform.refusing_unlisted() } else { transform })
}

fn date_unit(unit: config::DateUnit) -> DateUnit {
    match unit {
        config::DateUnit::Year => DateUnit::Year,
        config::DateUnit::Quarter => DateUnit::Quarter,
        config::DateUnit::Month => DateUnit::Month,
        config::DateUnit::Day => DateUnit::Day,
        config::DateUnit::Hour => DateUnit::Hour,
    }
}

/// What happens to a change that a transform of the stream cannot carry.
fn bad_value(stream: &Stream) -> BadValue {
    match stream.on_bad_value {
        OnBadValue::Fail => BadValue::Fail,
        OnBadValue::Quarantine => BadValue::Quarantine,
    }
}

fn sql_transform(rules: Vec<SqlRule>, context: SqlContext) -> Result<SqlTransform> {
    SqlTransform::new(rules, context).map_err(|problems| {
        let first = problems.first().map(SqlProblem::to_string).unwrap_or_default();
        Error::config("a transform cannot be").context("problem", first)
    })
}

/// The tables of a stream.
/// The tables whose updates are landed with the row before.
pub(crate) fn before_images(stream: &Stream) -> Vec<Pattern> {
    stream.before_images.iter().map(|pattern| Pattern::new(&pattern.0)).collect()
}

pub(crate) fn table_filter(stream: &Stream) -> TableFilter {
    let tables = &stream.tables;
    TableFilter {
        include: tables.include.iter().map(|pattern| Pattern::new(&pattern.0)).collect(),
        exclude: tables.exclude.iter().map(|pattern| Pattern::new(&pattern.0)).collect(),
        exclude_columns: tables.exclude_columns.iter().map(|pattern| Pattern::new(&pattern.0)).collect(),
        exact_names: stream.mask.need_names(),
        before_images: before_images(stream),
    }
}

fn mysql_start(start: &Start) -> Result<logweir_mysql::options::Start> {
    match start {
        Start::Now => Ok(logweir_mysql::options::Start::Now),
        Start::Earliest => Ok(logweir_mysql::options::Start::Earliest),
        Start::Position(start) => Ok(logweir_mysql::options::Start::Position { file: start.file.clone(), position: start.position }),
        Start::Gtid(start) => Ok(logweir_mysql::options::Start::Gtid(start.gtid.clone())),
        Start::Lsn(_) => Err(Error::config("an LSN is no place in a MySQL log")),
        Start::Timestamp(_) => Err(Error::config("this start is not available yet")),
    }
}

fn postgres_start(start: &Start) -> Result<logweir_postgres::options::Start> {
    match start {
        Start::Now => Ok(logweir_postgres::options::Start::Now),
        Start::Earliest => Ok(logweir_postgres::options::Start::Earliest),
        Start::Lsn(start) => Ok(logweir_postgres::options::Start::Lsn(start.lsn)),
        Start::Position(_) | Start::Gtid(_) => Err(Error::config("this start is no place in a PostgreSQL log")),
        Start::Timestamp(_) => Err(Error::config("this start is not available yet")),
    }
}

fn postgres_backfill(backfill: &Backfill) -> Option<logweir_postgres::options::BackfillOptions> {
    match backfill {
        Backfill::None => None,
        Backfill::All => Some(logweir_postgres::options::BackfillOptions::default()),
        Backfill::Some(options) => Some(logweir_postgres::options::BackfillOptions {
            exclude: options.exclude.iter().map(|pattern| Pattern::new(&pattern.0)).collect(),
            chunk_rows: options.chunk_rows,
            tasks: options.tasks,
        }),
    }
}

fn parse_url(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| Error::config("the url cannot be understood").context("url", text).source(error))
}

fn local_path(url: &Url) -> Result<PathBuf> {
    url.to_file_path().map_err(|()| Error::config("the url does not name a directory of this machine").context("url", url))
}

/// Splits the text of a path or URL before the first segment that has a `*` or `?`, or before the last one.
fn split_pattern(text: &str) -> (&str, &str) {
    let glob = text.find(['*', '?']).unwrap_or(text.len());
    match text[..glob].rfind('/') {
        Some(slash) => (&text[..=slash], &text[slash + 1..]),
        None => ("./", text),
    }
}

/// A path without `.` and `..`, so that the pattern in it begins where its directory ends.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_begins_where_its_directory_ends() {
        for (text, expected) in [
            ("/backup/mysql-bin.*", ("/backup/", "mysql-bin.*")),
            ("/backup/*/mysql-bin.0?", ("/backup/", "*/mysql-bin.0?")),
            ("/backup/mysql-bin.000001.zst", ("/backup/", "mysql-bin.000001.zst")),
            ("s3://bucket/binlog/mysql-bin.*", ("s3://bucket/binlog/", "mysql-bin.*")),
        ] {
            assert_eq!(split_pattern(text), expected);
        }
        assert_eq!(plain(Path::new("/etc/logweir/./../shop/mysql-bin.*")), Path::new("/etc/shop/mysql-bin.*"));
    }
}
