//! Authorities and certificates for a test, made by openssl.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// What kind of key a certificate has, and what it is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Rsa,
    /// RSA whose signatures are RSASSA-PSS with SHA-512.
    RsaPss,
    /// P-384, signed with SHA-384 by an authority of the same kind.
    Ecdsa,
    Ed25519,
}

/// An authority, and what it issued.
pub(crate) struct Authority {
    directory: TempDir,
    key: Key,
}

impl Authority {
    pub(crate) fn new(key: Key) -> Authority {
        let authority = Authority { directory: tempfile::tempdir().unwrap(), key };
        std::fs::write(authority.path("empty.cnf"), "[req]\ndistinguished_name=names\n[names]\n").unwrap();
        authority.make_key("ca");
        let (config, key, ca) = (authority.text("empty.cnf"), authority.text("ca.key"), authority.text("ca.pem"));
        let mut arguments =
            vec!["req", "-config", &config, "-new", "-x509", "-key", &key, "-out", &ca, "-days", "3650", "-subj", "/CN=test authority"];
        arguments.extend(["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"]);
        arguments.extend(authority.signing());
        openssl(&arguments);
        authority
    }

    /// The authority's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Issues `<name>.pem` and `<name>.key`, for a subject and with what the extension file says (`subjectAltName=DNS:…`);
    /// without extensions it is of X.509 version 1.
    pub(crate) fn issue(&self, name: &str, subject: &str, extensions: &str) -> (PathBuf, PathBuf) {
        self.make_key(name);
        let file = |end: &str| self.text(&format!("{name}.{end}"));
        let (key, request, certificate, config) = (file("key"), file("csr"), file("pem"), self.text("empty.cnf"));
        openssl(&["req", "-config", &config, "-new", "-key", &key, "-out", &request, "-subj", &format!("/CN={subject}")]);
        let (ca, ca_key, extension_file) = (self.text("ca.pem"), self.text("ca.key"), file("ext"));
        let mut arguments =
            vec!["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "3650", "-out", &certificate];
        std::fs::write(&extension_file, extensions).unwrap();
        if !extensions.is_empty() {
            arguments.extend(["-extfile", &extension_file]);
        }
        arguments.extend(self.signing());
        openssl(&arguments);
        (certificate.into(), key.into())
    }

    fn signing(&self) -> &'static [&'static str] {
        match self.key {
            Key::Rsa => &["-sha256"],
            Key::RsaPss => &["-sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"],
            Key::Ecdsa => &["-sha384"],
            Key::Ed25519 => &[],
        }
    }

    fn make_key(&self, name: &str) {
        let out = self.text(&format!("{name}.key"));
        let kind: &[&str] = match self.key {
            Key::Rsa | Key::RsaPss => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Key::Ecdsa => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Key::Ed25519 => &["-algorithm", "ED25519"],
        };
        openssl(&[&["genpkey"], kind, &["-out", &out]].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl cannot be run");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
