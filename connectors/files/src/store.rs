//! Opens a place for files, by its URL.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Error, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::Url;

/// How often a request is tried again before the runtime hears of it. The runtime retries without end and says so in status,
/// log and metrics; this is for the odd lost connection.
const REQUEST_RETRIES: usize = 4;

/// How long such retries may take together.
const REQUEST_RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// A place, opened.
pub(crate) enum Place {
    /// A folder of this machine.
    Local(PathBuf),
    /// A prefix of an object store that takes multipart uploads apart from their completion.
    Remote { store: Arc<dyn ObjectStore>, multipart: Arc<dyn MultipartStore>, prefix: Path },
}

/// Opens the store behind `url` and the path in it. Nothing is asked of the store yet.
///
/// `file:///absolute/folder` and `s3://bucket/prefix`. Options are `object_store`'s own (`endpoint`, `region`, `allow_http`,
/// `access_key_id`, …), with `AWS_*` of the environment behind them. An option that does not exist is an error that names it.
pub fn open_store(url: &Url, options: &BTreeMap<String, String>) -> Result<(Arc<dyn ObjectStore>, Path)> {
    match Scheme::of(url)? {
        Scheme::File => {
            let folder = local_folder(url, options)?;
            let path = Path::from_absolute_path(&folder)
                .map_err(|error| Error::config("url is not a folder that can be written to").context("url", url).source(error))?;
            Ok((Arc::new(LocalFileSystem::new()), path))
        }
        Scheme::S3 => {
            let (store, prefix) = open_s3(url, options)?;
            Ok((Arc::new(store), prefix))
        }
    }
}

/// The same for the writer, which needs more of a place than reading does.
pub(crate) fn open_place(url: &Url, options: &BTreeMap<String, String>) -> Result<Place> {
    match Scheme::of(url)? {
        Scheme::File => Ok(Place::Local(local_folder(url, options)?)),
        Scheme::S3 => {
            let (store, prefix) = open_s3(url, options)?;
            let store = Arc::new(store);
            let multipart: Arc<dyn MultipartStore> = Arc::<AmazonS3>::clone(&store);
            Ok(Place::Remote { store, multipart, prefix })
        }
    }
}

enum Scheme {
    File,
    S3,
}

impl Scheme {
    fn of(url: &Url) -> Result<Self> {
        match url.scheme() {
            "file" => Ok(Scheme::File),
            "s3" | "s3a" => Ok(Scheme::S3),
            other => Err(Error::config("url has a scheme that is not supported")
                .context("scheme", other)
                .remedy("use file:///absolute/folder or s3://bucket/prefix")),
        }
    }
}

fn local_folder(url: &Url, options: &BTreeMap<String, String>) -> Result<PathBuf> {
    if let Some(key) = options.keys().next() {
        return Err(Error::config("a file:// url takes no options").context("option", key));
    }
    url.to_file_path().map_err(|()| {
        Error::config("url does not name a folder of this machine")
            .context("url", url)
            .remedy("write the absolute path after file://, as in file:///data/lake")
    })
}

fn open_s3(url: &Url, options: &BTreeMap<String, String>) -> Result<(AmazonS3, Path)> {
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| Error::config("url names no bucket").context("url", url).remedy("write it as s3://bucket/prefix"))?;
    let prefix = Path::from_url_path(url.path())
        .map_err(|error| Error::config("url has a path that no object can have").context("url", url).source(error))?;
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: REQUEST_RETRIES, retry_timeout: REQUEST_RETRY_TIMEOUT };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
    for (key, value) in options {
        let config = AmazonS3ConfigKey::from_str(&key.to_ascii_lowercase())
            .map_err(|_| Error::config("unknown option of an s3:// url").context("option", key).remedy(OPTIONS_REMEDY))?;
        builder = builder.with_config(config, value);
    }
    let store = builder
        .build()
        // The cause may quote an option's value, but never a secret one: those are not parsed.
        .map_err(|error| Error::config("the options of the s3:// url do not fit together").context("url", url).source(error))?;
    Ok((store, prefix))
}

const OPTIONS_REMEDY: &str =
    "options are named as object_store names them: endpoint, region, allow_http, access_key_id, secret_access_key, session_token, …";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use logweir_core::ErrorKind;

    fn open(url: &str, options: &[(&str, &str)]) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        open_store(&Url::parse(url).unwrap(), &options)
    }

    #[test]
    fn a_folder_and_a_bucket_open() {
        assert_eq!(open("file:///data/my%20lake/", &[]).unwrap().1.as_ref(), "data/my lake");
        let options = [("endpoint", "http://127.0.0.1:1"), ("allow_http", "true"), ("region", "eu-west-1")];
        assert_eq!(open("s3://bucket/a/b/", &options).unwrap().1.as_ref(), "a/b");
        assert_eq!(open("s3://bucket", &[]).unwrap().1.as_ref(), "");
    }

    #[test]
    fn mistakes_are_named() {
        for (url, options, expected) in [
            ("s3://bucket", &[("acess_key_id", "x")][..], "acess_key_id"),
            ("s3://bucket", &[("allow_http", "perhaps")][..], "do not fit"),
            ("file:///data", &[("region", "x")][..], "region"),
            ("file://data/lake", &[][..], "absolute path"),
            ("ftp://host/x", &[][..], "ftp"),
        ] {
            let error = open(url, options).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
