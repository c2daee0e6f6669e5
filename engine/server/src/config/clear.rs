//! Clear secrets in a file: found, so that they are refused, and hidden, so that no message shows them.
//!
//! A mistake is often a secret in the wrong place or under a misspelt key, so what looks like one is hidden whether or
//! not its key is known.

use super::problem::{Place, Problem, nearest};
use super::tree::{Node, Value};

/// True if a value under this key is better not shown.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["pass", "pwd", "secret", "token", "key", "cred", "sas"].iter().any(|word| key.contains(word))
        || nearest(&key, ["password", "secret", "token", "key"]).is_some()
}

/// True if an object store's option of this name holds a secret.
fn is_secret_option(name: &str) -> bool {
    let name = name.to_lowercase();
    let secret = ["secret", "password", "token", "sas", "account_key", "access_key", "customer_key", "master_key"];
    // An identifier is public, and a file that holds a token is not the token.
    secret.iter().any(|word| name.contains(word)) && !name.contains("access_key_id") && !name.ends_with("_file")
}

/// The places of values that somebody wrote into the file although they look like secrets.
pub(super) fn places(root: &Node, hidden: &mut Vec<Place>) {
    for (key, value) in root.entries() {
        match key.name.as_str() {
            // What is chosen freely says nothing of what stands under it: a stream may be called `monkeys`.
            "keys" if !value.entries().is_empty() => value.entries().iter().for_each(|(_, value)| entry_places("key", value, hidden)),
            "profiles" | "streams" => value.entries().iter().for_each(|(_, value)| inner_places(value, hidden)),
            _ => entry_places(&key.name, value, hidden),
        }
    }
    root.items().iter().for_each(|item| inner_places(item, hidden));
}

fn inner_places(node: &Node, hidden: &mut Vec<Place>) {
    if node.text().is_some_and(|text| user_information(text).is_some()) {
        hidden.push(node.place);
    }
    node.entries().iter().for_each(|(key, value)| entry_places(&key.name, value, hidden));
    node.items().iter().for_each(|item| inner_places(item, hidden));
}

fn entry_places(key: &str, value: &Node, hidden: &mut Vec<Place>) {
    if !names_a_secret(key) {
        return inner_places(value, hidden);
    }
    match &value.value {
        // The names of a variable and of a file are no secrets.
        Value::Map(entries) => entries
            .iter()
            .filter(|(key, node)| !(matches!(key.name.as_str(), "env" | "file") && node.text().is_some()))
            .for_each(|(_, node)| scalars(node, hidden)),
        _ => scalars(value, hidden),
    }
}

/// Everything in a place where only a secret would be.
fn scalars(node: &Node, hidden: &mut Vec<Place>) {
    match &node.value {
        Value::Text(_) | Value::Number(_) => hidden.push(node.place),
        Value::List(items) => items.iter().for_each(|item| scalars(item, hidden)),
        Value::Map(entries) => entries.iter().for_each(|(_, node)| scalars(node, hidden)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The same for a text that is not YAML: the rest of every line that looks like one.
pub(super) fn lines(text: &str) -> Vec<Place> {
    let after_secret = |line: &str| {
        let colon = line.match_indices(':').find(|(at, _)| {
            let name = line[..*at].rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\''))).next();
            name.is_some_and(|name| names_a_secret(name.trim_matches(['"', '\''])))
        });
        let after = colon.map(|(at, _)| at + 1);
        let user = user_information(line).map(|(start, _)| start);
        after.into_iter().chain(user).min().map(|at| line[..at].chars().count())
    };
    text.lines()
        .enumerate()
        .filter_map(|(i, line)| after_secret(line).map(|start| Place { line: i + 1, column: start + 1, length: line.len() }))
        .collect()
}

/// A message without the `user:password@` of URLs that it quotes.
pub(super) fn redacted(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((start, end)) = user_information(rest) {
        shown.push_str(&rest[..start]);
        shown.push_str("***");
        rest = &rest[end..];
    }
    shown + rest
}

/// Where the first URL of a text says who asks: from behind `//` to before `@`.
fn user_information(text: &str) -> Option<(usize, usize)> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    text.match_indices("//").find_map(|(at, slashes)| {
        let start = at + slashes.len();
        let scheme = text[..at].ends_with(':');
        if !scheme && !text[..at].chars().next_back().is_none_or(ends) {
            return None;
        }
        let token = text[start..].split(ends).next()?;
        let authority = token.split('/').next()?;
        // A password may hold anything, an `@` too: the last one counts.
        let plain = authority.rfind('@').filter(|_| scheme || authority.contains(':'));
        // Also a `/`, as the keys of S3 do: what follows the colon is no port then.
        let with_slash = || {
            let (_, port) = authority.split_once(':')?;
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) { None } else { token.rfind('@') }
        };
        plain.or_else(with_slash).filter(|length| *length > 0).map(|length| (start, start + length))
    })
}

/// Clear secrets where the types allow a text: options of object stores and URLs.
pub(super) fn check(root: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let places = root.get("profiles").map(Node::entries).unwrap_or_default().iter().flat_map(|(_, profile)| profile.entries());
    for endpoint in places.map(|(_, endpoint)| endpoint).chain(root.get("state")) {
        for (key, value) in endpoint.get("options").map(Node::entries).unwrap_or_default() {
            if is_secret_option(&key.name) && matches!(value.value, Value::Text(_) | Value::Number(_)) {
                problems.push(
                    Problem::new(value.place, format!("`{}` is a secret and must not stand in the file", key.name))
                        .help("write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }"),
                );
            } else if value.text().is_some_and(|text| user_information(text).is_some()) {
                problems.push(
                    Problem::new(value.place, format!("`{}` holds a user or a secret, which must not stand in the file", key.name))
                        .help("write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }"),
                );
            }
        }
        if let Some(url) = endpoint.get("url")
            && url.text().is_some_and(|text| user_information(text).is_some())
        {
            problems.push(
                Problem::new(url.place, "`url` holds a user or a secret, which must not stand in the file")
                    .help("put them into `options`: { access_key_id: …, secret_access_key: { env: NAME_OF_A_VARIABLE } }"),
            );
        }
    }
    problems
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    #[test]
    fn no_message_shows_a_secret() {
        for text in [
            "profiles: { db: { mysql: { host: h, user: u, pasword: hunter2 } } }",
            "profiles: { db: { mysql: { host: h, user: u, passwd: hunter2 } } }",
            "profiles: { db: { mysql: { host: h, user: u, pwd: hunter2 } } }",
            "profiles: { db: { mysql: { host: h, user: u, password: hunter2 } } }",
            "profiles: { db: { mysql: { host: h, user: u, password: { enf: hunter2 } } } }",
            "streams: { s: { mask: [ { columns: [\"*.a\"], with: hash, key: { enf: hunter2 } } ] } }",
            "profiles: { db: { mysql: { host: h, user: u, creds: hunter2 } } }",
            "profiles: { db: { mysql: { host: h, user: u, password: [ hunter2 ] } } }",
            "profiles: { db: { mysql: { host: h, user: u, pasword: [ hunter2 ] } } }",
            "profiles: { db: { mysql: { host: h, user: u, password: { enf: [ hunter2 ] } } } }",
            "profiles: { db: { mysql: { host: h, user: u, password: { env: { x: hunter2 } } } } }",
            "profiles: { lake: { files: { url: \"s3://KEY:hunter2/zz@bucket/y\" } } }",
            "profiles: { lake: { files: { url: \"//KEY:hunter2@bucket/y\" } } }",
            "profiles: { lake: { files: { url: \"s3://b/p\", options: { endpoint: \"http://u:hunter2@h\" } } } }",
            "state: { postgres: \"postgres://u:hunter2@h/d\" }",
            "profiles: { lake: { files: { url: \"s3://KEY:hunter2@bucket/x y\" } } }",
            "profiles: { lake: { files: { url: \"ftp://KEY:hunter2@bucket\" } } }",
            "profiles: { lake: { files: { url: \"s3://b/p\", options: { secret_access_key: hunter2 } } } }",
            "state: { url: \"s3://b/p\", options: { aws_secret_access_key: hunter2 } }",
            "profiles: { lake: [ files: s3://KEY:hunter2@bucket",
            "profiles: { db: { mysql: { pasword: hunter2, [",
        ] {
            let problems = super::super::parse("logweir.yaml", text, Path::new("/")).unwrap_err().render();
            assert!(!problems.contains("hunter2"), "{text}\n{problems}");
        }
    }

    #[test]
    fn clear_secrets_are_refused_where_a_text_would_do() {
        let text = "profiles:
  lake: { files: { url: \"s3://KEY:hunter2@b/p\", options: { region: eu, access_key_id: AKIA, secret_access_key: hunter2 } } }
streams: {}
";
        let problems = super::super::parse("logweir.yaml", text, Path::new("/")).unwrap_err().render();
        assert!(problems.contains("`secret_access_key` is a secret and must not stand in the file"), "{problems}");
        assert!(problems.contains("`url` holds a user or a secret"), "{problems}");
        assert!(!problems.contains("`access_key_id` is a secret"), "{problems}");
    }

    #[test]
    fn an_address_without_a_user_is_shown() {
        assert_eq!(super::redacted("no such place `s3://bucket/a@b`"), "no such place `s3://bucket/a@b`");
        assert_eq!(super::redacted("`http://h:9000/a@b`"), "`http://h:9000/a@b`");
        assert_eq!(super::redacted("`s3://u:p@q@b/x`, `http://v@h`"), "`s3://***@b/x`, `http://***@h`");
    }

    #[test]
    fn options_that_are_secrets() {
        for (name, secret) in [
            ("secret_access_key", true),
            ("AWS_SESSION_TOKEN", true),
            ("sas_key", true),
            ("account_key", true),
            ("access_key_id", false),
            ("web_identity_token_file", false),
            ("container_credentials_relative_uri", false),
            ("region", false),
        ] {
            assert_eq!(super::is_secret_option(name), secret, "{name}");
        }
    }

    #[test]
    fn an_option_with_a_user_in_its_url_is_refused() {
        let text = "state: { url: \"s3://b/p\", options: { endpoint: \"http://u:hunter2@h:9000\" } }\n";
        let problems = super::super::parse("logweir.yaml", text, Path::new("/")).unwrap_err().render();
        assert!(problems.contains("`endpoint` holds a user or a secret"), "{problems}");
    }

    #[test]
    fn what_a_name_of_ones_own_holds_is_shown() {
        let text = "profiles: { monkeys: { mysql: { host: h, usr: weir } } }\n";
        let problems = super::super::parse("logweir.yaml", text, Path::new("/")).unwrap_err().render();
        assert!(problems.contains("usr: weir"), "{problems}");
    }

    #[test]
    fn no_table_at_all_is_a_mistake() {
        let text = "streams: { s: { source: db, tables: { include: [] } } }\n";
        let problems = super::super::parse("logweir.yaml", text, Path::new("/")).unwrap_err().render();
        assert!(problems.contains("`include` names no table"), "{problems}");
    }
}
