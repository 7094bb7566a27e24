//! Secrets: what looks like one is not written down.
//!
//! By names (`--token`, `DB_PASSWORD=`), by the forms of well-known keys, and by addresses that hold a
//! password. No more than a net with meshes: whoever has secrets in texts of no such form says so
//! nowhere else either.

use serde_json::Value;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// Words of names whose values are secrets.
const WORDS: [&str; 21] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "auth",
    "authorization",
    "authtoken",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "secrets",
    "token",
    "webhook",
];
/// Two words that are a secret's name together.
const PAIRS: [(&str, &str); 8] = [
    ("access", "key"),
    ("account", "key"),
    ("api", "key"),
    ("encryption", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("signing", "key"),
    ("storage", "key"),
];
/// How well-known keys begin.
const PREFIXES: [&str; 11] =
    ["AKIA", "ASIA", "eyJ", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "hf_", "sk-", "xox"];
/// A shorter text is no key, whatever it begins with.
const KEY_BYTES_MIN: usize = 16;

/// Whether what is called so is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let words = words_of(name);
    let pair = |pair: &[String]| PAIRS.contains(&(pair[0].as_str(), pair[1].as_str()));
    words.iter().any(|word| WORDS.contains(&word.as_str())) || words.windows(2).any(pair)
}

/// The words of a name such as `--api-key`, `API_KEY` or `apiKey`, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        let begins = character.is_ascii_uppercase() && was_lower;
        if !character.is_alphanumeric() || begins {
            words.push(String::new());
        }
        if character.is_alphanumeric() {
            let last = words.last_mut().expect("there is one from the start");
            last.extend(character.to_lowercase());
        }
        was_lower = character.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Hides secret texts in a value that is called `name`. Numbers are none; neither are the special
/// tokens of a tokenizer (`pad_token: "<pad>"`).
pub fn hide(name: &str, value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| hide(name, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(name, item)),
        Value::String(secret) if is_secret_name(name) && !secret.starts_with(['<', '[']) => {
            *secret = HIDDEN.to_owned();
        }
        Value::String(other) => *other = text(other),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A command line without its secrets.
pub fn command(words: &[String]) -> Vec<String> {
    let mut after_flag = false;
    let shown = words.iter().map(|word| {
        if std::mem::take(&mut after_flag) && !word.starts_with('-') {
            return HIDDEN.to_owned();
        }
        after_flag = is_secret_flag(word);
        text(word)
    });
    shown.collect()
}

/// A flag whose value is the next word.
fn is_secret_flag(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && is_secret_name(word)
}

/// A text without its secrets: it may be a script of many words.
pub fn text(text: &str) -> String {
    let (mut shown, mut is_awaited) = (String::with_capacity(text.len()), false);
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end_matches(char::is_whitespace);
        if !bare.is_empty() {
            match is_awaited && !bare.starts_with('-') {
                true => shown += HIDDEN,
                false => shown += &one_word(bare),
            }
            // `--token`, `X-Api-Key:` and `Bearer` have it in the next word.
            let heads = bare.ends_with(':') && is_secret_name(bare);
            is_awaited = is_secret_flag(bare) || heads || bare.eq_ignore_ascii_case("bearer");
        }
        shown += &word[bare.len()..];
    }
    shown
}

fn one_word(word: &str) -> String {
    if let Some(at) = word.find(['=', ':'])
        && at + 1 < word.len()
        && is_secret_name(&word[..at])
    {
        return format!("{}{HIDDEN}", &word[..=at]);
    }
    if is_key(word.rsplit(['=', ':', '\'', '"', ',']).next().unwrap_or(word))
        || word.split(['\'', '"', '=', ',']).any(is_key)
    {
        return HIDDEN.to_owned();
    }
    without_password(word)
}

fn is_key(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    KEY_BYTES_MIN <= word.len()
        && word.chars().all(plain)
        && word.chars().any(|c| c.is_ascii_digit())
        && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// An address without the user and password in it.
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        command(&words).join(" ")
    }

    #[test]
    fn secrets_of_a_command_line_are_hidden() {
        let check = |words: &[&str], expected: &str| assert_eq!(shown(words), expected);
        check(&["train", "--token", "abc", "--lr", "0.1"], "train --token *** --lr 0.1");
        check(&["train", "--api-key=abc", "--apiKey", "x"], "train --api-key=*** --apiKey ***");
        check(&["env", "DB_PASSWORD=x", "train"], "env DB_PASSWORD=*** train");
        check(&["sh", "-c", "TOKEN=a b --password c; d"], "sh -c TOKEN=*** b --password *** d");
        check(&["curl", "-H", "Authorization: Bearer abcdef"], "curl -H Authorization: *** ***");
        check(
            &["curl", "-H", "X-Api-Key:abc", "-H", "Cookie:  a"],
            "curl -H X-Api-Key:*** -H Cookie:  ***",
        );
        check(
            &["sh", "-c", "x --token   abc\t--authToken  d"],
            "sh -c x --token   ***\t--authToken  ***",
        );
        check(
            &["env", "AZURE_STORAGE_KEY=x", "DB_PASS=y"],
            "env AZURE_STORAGE_KEY=*** DB_PASS=***",
        );
        check(&["x", "https://ann:pw@host/a@b?c"], "x https://host/a@b?c");
        check(&["x", "postgres://u:p@db:5432/x"], "x postgres://db:5432/x");
        check(&["x", "hf_aBcDeFgHiJkLmNo12345"], "x ***");
        check(&["x", "--header=ghp_0123456789abcdefghij"], "x ***");
        check(&["train", "--token", "--lr", "1"], "train --token --lr 1");
    }

    #[test]
    fn what_is_no_secret_is_kept() {
        for words in [
            &["train.py", "--max-tokens", "512", "--tokenizer", "bert", "--key", "id"][..],
            &["train.py", "--author", "ann", "--keyboard", "x", "lr=0.1", "hf_model", "sk-learn"],
            &["git@github.com:a/b", "https://host/x@y", "a@b", "--monkey=1"],
        ] {
            assert_eq!(shown(words), words.join(" "));
        }
    }

    #[test]
    fn secrets_of_values_are_hidden_by_their_names() {
        let mut value = json!({
            "api_key": "abc", "max_tokens": 5, "pad_token": "<pad>", "inner": [{"secret": ["x"]}],
            "url": "s3://u:p@bucket/x", "token": 7,
        });
        hide("params", &mut value);
        let expected = json!({
            "api_key": "***", "max_tokens": 5, "pad_token": "<pad>", "inner": [{"secret": ["***"]}],
            "url": "s3://bucket/x", "token": 7,
        });
        assert_eq!(value, expected);
    }
}
