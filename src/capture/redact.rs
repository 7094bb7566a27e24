//! Secrets: what looks like one is not written down.
//!
//! By names (`--token x`, `DB_PASSWORD=x`, `"api_key": "x"`), by the forms of well-known keys, and by what
//! addresses hold beside the way. Rather more is hidden than less, and still it is no more than a net with
//! meshes: a secret in a text of no such form is not seen.

use serde_json::Value;

use super::url;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// Words of names whose values are secrets.
const WORDS: [&str; 25] = [
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
    "pat",
    "privatekey",
    "pwd",
    "secret",
    "secretkey",
    "secrets",
    "sig",
    "signature",
    "sshpass",
    "token",
    "webhook",
];
/// Two words that are a secret's name together.
const PAIRS: [(&str, &str); 14] = [
    ("access", "key"),
    ("account", "key"),
    ("api", "key"),
    ("auth", "key"),
    ("client", "key"),
    ("comet", "key"),
    ("encryption", "key"),
    ("license", "key"),
    ("master", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("signing", "key"),
    ("storage", "key"),
    ("wandb", "key"),
];
/// Ends of such words: `PGPASSWORD`.
const ENDS: [&str; 4] = ["apikey", "passwd", "password", "secret"];
/// Words of headers that have a secret to the end of the line.
const HEADERS: [&str; 3] = ["auth", "authorization", "cookie"];
/// Flags whose value is `user:password`.
const USER_FLAGS: [&str; 3] = ["--proxy-user", "--user", "-u"];
/// What has versions by the names of packages.
const PACKAGES: &str = "packages";
/// How well-known keys begin, and which signs they have beside letters and digits.
const KEYS: [(&str, &str); 11] = [
    ("AKIA", ""),
    ("ASIA", ""),
    ("eyJ", "._-"),
    ("ghp_", ""),
    ("gho_", ""),
    ("ghs_", ""),
    ("github_pat_", "_"),
    ("glpat-", "_-"),
    ("hf_", ""),
    ("sk-", "_-"),
    ("xox", "-"),
];
/// Longest password before the host of an address, in characters.
const PASSWORD_CHARACTERS_MAX: usize = 256;
/// A shorter text is no key, whatever it begins with.
const KEY_BYTES_MIN: usize = 16;

/// Whether what is called so is a secret.
pub fn is_secret_name(name: &str) -> bool {
    let words = words_of(name);
    let pair = |pair: &[String]| PAIRS.contains(&(pair[0].as_str(), pair[1].as_str()));
    let is_secret = |word: &String| {
        WORDS.contains(&word.as_str()) || ENDS.iter().any(|end| word.ends_with(end))
    };
    words.iter().any(is_secret) || words.windows(2).any(pair)
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
/// tokens of a tokenizer (`pad_token: "<pad>"`), and versions of packages (`google-auth`).
pub fn hide(name: &str, value: &mut Value) {
    match value {
        Value::Object(versions) if name == PACKAGES => {
            versions.values_mut().for_each(|version| hide(PACKAGES, version));
        }
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| hide(name, value)),
        Value::Array(items) if name == "command" && items.iter().all(Value::is_string) => {
            let words = items.iter().filter_map(Value::as_str).map(str::to_owned);
            let shown = command(&words.collect::<Vec<_>>());
            *items = shown.into_iter().map(Value::String).collect();
        }
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
    let mut before = "";
    let shown = words.iter().map(|word| {
        let flag = std::mem::replace(&mut before, word);
        if is_value_of(flag, word) {
            before = "";
            return HIDDEN.to_owned();
        }
        match word.split_once('=') {
            // All of the word is its value, blanks too.
            Some((name, value)) if is_name(name) && is_secret_name(name) && !value.is_empty() => {
                format!("{name}={HIDDEN}")
            }
            _ => text(word),
        }
    });
    shown.collect()
}

/// Whether a word is what the flag before it keeps secret.
fn is_value_of(flag: &str, word: &str) -> bool {
    if word.is_empty() || word.starts_with("--") || !flag.starts_with('-') {
        return false;
    }
    let password = word.split_once(':').map_or("", |(_, password)| password);
    let is_password = !password.bytes().all(|byte| byte.is_ascii_digit());
    is_name(flag) && is_secret_name(flag) || USER_FLAGS.contains(&flag) && is_password
}

fn is_name(text: &str) -> bool {
    text.chars().all(is_of_name)
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A text without its secrets: it may be a script of many words, JSON, a connection string.
pub fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        if end == 0 {
            shown.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (name, after) = rest.split_at(end);
        let hidden = if after.starts_with("://") {
            let address = &rest[..address_bytes(rest)];
            shown += &url::without_credentials(address);
            rest = &rest[address.len()..];
            continue;
        } else if is_key(name.trim_matches(['-', '.'])) {
            Some((HIDDEN.to_owned(), after))
        } else if let Some(user) = password_bytes(after) {
            // `ann:password@host`
            Some((String::new(), &after[user..]))
        } else {
            secret_after(name, after)
        };
        let (part, left) = hidden.unwrap_or((name.to_owned(), after));
        shown += &part;
        rest = left;
    }
    shown
}

/// A name with its secret value hidden, and what comes after the value.
fn secret_after<'a>(name: &str, after: &'a str) -> Option<(String, &'a str)> {
    let blanks = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
    let is_secret = is_secret_name(name);
    let quote = quote_at(after).len();
    let separator = quote + blanks(&after[quote..]);
    let is_assigned = is_secret && after[separator..].starts_with(['=', ':']);
    if is_assigned {
        let start = separator + 1 + blanks(&after[separator + 1..]);
        let is_header = after[separator..].starts_with(':')
            && words_of(name).iter().any(|word| HEADERS.contains(&word.as_str()));
        let value = &after[start..];
        let opened = quote_at(value).len();
        if value.starts_with(':') {
            return None;
        }
        let end = opened + value_bytes(value, is_header);
        let shown = || (format!("{name}{}{HIDDEN}", &after[..start + opened]), &value[end..]);
        return (opened < end).then(shown);
    }
    let start = blanks(after);
    let is_bearer = name.eq_ignore_ascii_case("bearer");
    // Most words end here, without a look at all that follows.
    if start == 0 || !is_bearer && !name.starts_with('-') {
        return None;
    }
    let value = &after[start..];
    let opened = quote_at(value).len();
    let end =
        opened + value[opened..].find(ends_word(quote_at(value))).unwrap_or(value.len() - opened);
    let is_hidden = is_bearer && opened < end || is_value_of(name, &value[opened..end]);
    is_hidden.then(|| (format!("{name}{}{HIDDEN}", &after[..start + opened]), &value[end..]))
}

/// The quote that a text begins with, if it does; within another text it has a `\`.
fn quote_at(text: &str) -> &str {
    let escaped = text.starts_with('\\').into();
    match text[escaped..].starts_with(['"', '\'']) {
        true => &text[..escaped + 1],
        false => "",
    }
}

/// Where a word ends that began with this quote.
fn ends_word(quote: &str) -> impl Fn(char) -> bool {
    let quote = quote.chars().next_back();
    move |c| quote.map_or(c.is_whitespace(), |quote| c == quote)
}

/// Bytes of a value, its first quote left out.
fn value_bytes(value: &str, is_header: bool) -> usize {
    let quote = quote_at(value);
    let value = &value[quote.len()..];
    if !quote.is_empty() {
        return value.find(quote).unwrap_or(value.len());
    }
    let ends = |c: char| match is_header {
        true => matches!(c, '\n' | '\r' | '"' | '\''),
        false => c.is_whitespace() || ",;&|}])<>\"'`".contains(c),
    };
    value.find(ends).unwrap_or(value.len())
}

/// Bytes of the address that a text begins with.
fn address_bytes(text: &str) -> usize {
    // Another one may follow, or something else; but a password may have any sign.
    let next = text.match_indices("://").nth(1).and_then(|(place, _)| {
        let before = &text[..place];
        before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
    });
    let text = &text[..next.unwrap_or(text.len())];
    let end = text.find(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).unwrap_or(text.len());
    let text = &text[..end];
    let host = text.rfind('@').unwrap_or(0);
    text[host..].find([',', ';', '|']).map_or(text.len(), |place| host + place)
}

/// Bytes up to the sign behind a password in `:password@host`; of an image's digest there is none.
fn password_bytes(text: &str) -> Option<usize> {
    let word = text.strip_prefix(':')?;
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';');
    let near = word.char_indices().take(PASSWORD_CHARACTERS_MAX).take_while(|(_, c)| !ends(*c));
    // The last sign counts: a password may have others.
    let (place, _) = near.filter(|(_, c)| *c == '@').last().filter(|(place, _)| 0 < *place)?;
    let is_password = !word[..place].contains('/') && !word[place + 1..].starts_with("sha256:");
    is_password.then_some(1 + place + 1)
}

/// Whether a word has the form of a well-known key. Names of files have other signs: `hf_llama_finetune2`.
fn is_key(word: &str) -> bool {
    let is_form = |(prefix, signs): &(&str, &str)| {
        let rest = word.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
        })
    };
    KEY_BYTES_MIN <= word.len()
        && word.chars().any(|c| c.is_ascii_digit())
        && KEYS.iter().any(is_form)
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
        check(&["x", "--password=correct horse battery", "y"], "x --password=*** y");
        check(&["sh", "-c", "TOKEN=a b --password c; d"], "sh -c TOKEN=***");
        check(&["curl", "-H", "Authorization: Basic dXNlcjpwdw=="], "curl -H Authorization: ***");
        check(&["curl", "-H", "Authorization: token x", "y"], "curl -H Authorization: *** y");
        check(
            &["curl", "-H", "X-Api-Key:abc", "-H", "Cookie:  a"],
            "curl -H X-Api-Key:*** -H Cookie:  ***",
        );
        check(&["curl", "-u", "ann:hunter2", "x"], "curl -u *** x");
        check(&["docker", "run", "-u", "1000:1000", "x"], "docker run -u 1000:1000 x");
        check(
            &["env", "AZURE_STORAGE_KEY=x", "PGPASSWORD=y", "GITHUB_PAT=z"],
            "env AZURE_STORAGE_KEY=*** PGPASSWORD=*** GITHUB_PAT=***",
        );
        check(&["x", "--wandb-key", "a", "--token", "-abc"], "x --wandb-key *** --token ***");
        check(&["x", "hf_aBcDeFgHiJkLmNo12345"], "x ***");
        check(&["x", "--header=ghp_0123456789abcdefghij"], "x --header=***");
        check(&["train", "--token", "--lr", "1"], "train --token --lr 1");
    }

    #[test]
    fn secrets_within_a_text_are_hidden() {
        let check = |line: &str, expected: &str| assert_eq!(text(line), expected);
        check("x --token   abc\t--authToken  d", "x --token   ***\t--authToken  ***");
        check("export PASSWORD=\"a b c\"; run", "export PASSWORD=\"***\"; run");
        check("curl -H 'Authorization: Basic a b' url", "curl -H 'Authorization: ***' url");
        check("x --password 'a b' y", "x --password '***' y");
        check("Bearer abc def", "Bearer *** def");
        check(r#"{"lr":1,"api_key":"sesame","b":2}"#, r#"{"lr":1,"api_key":"***","b":2}"#);
        check(r#"{\"api_key\": \"sesame\"}"#, r#"{\"api_key\": \"***\"}"#);
        check("lr=1,token=sesame,b=2", "lr=1,token=***,b=2");
        check("Server=db;User Id=sa;Password=hunter2;X=1", "Server=db;User Id=sa;Password=***;X=1");
        check("password : hunter2 x", "password : *** x");
        check("get /x?private_token=abc&y=1", "get /x?private_token=***&y=1");
        check("export API_TOKEN= ; x", "export API_TOKEN= ; x");
    }

    #[test]
    fn addresses_are_told_without_what_opens_them() {
        let check = |line: &str, expected: &str| assert_eq!(text(line), expected);
        check("x https://ann:pw@host/a@b?c", "x https://host/a@b");
        check("postgres://u:p@db:5432/x", "postgres://db:5432/x");
        check("https://h/x?token=abc&X-Amz-Signature=d y", "https://h/x y");
        check("a=https://u:p@h1/x,https://u:q@h2/y?sig=z", "a=https://h1/x,https://h2/y");
        check("a=https://u:p,w@h,token=x", "a=https://h,token=***");
        check("\"git+https://u:p@h/r.git@1f0c\"", "\"git+https://h/r.git@1f0c\"");
        check("clone ann:pw@host:r", "clone host:r");
        check("clone ann:p@w@host:r; x@y", "clone host:r; x@y");
        check("image:3.11@sha256:0a1b", "image:3.11@sha256:0a1b");
    }

    #[test]
    fn what_is_no_secret_is_kept() {
        for words in [
            &["train.py", "--max-tokens", "512", "--tokenizer", "bert", "--key", "id"][..],
            &["train.py", "--author", "ann", "--keyboard", "x", "lr=0.1", "hf_model", "sk-learn"],
            &["hf_finetune_llama2.py", "out/sk-learn-0.24-model", "hf_aBcDeFgHiJkLm_12345"],
            &[
                "git@github.com:a/b",
                "https://host/x@y",
                "a@b",
                "--monkey=1",
                "-u",
                "-v",
                "std::auth::x",
            ],
            &["sh", "-c", "cd x && FOO='a b' python train.py > log 2>&1 # überall", "–", "\\", "'"],
        ] {
            assert_eq!(shown(words), words.join(" "));
        }
    }

    #[test]
    fn secrets_of_values_are_hidden_by_their_names() {
        let mut value = json!({
            "api_key": "abc", "max_tokens": 5, "pad_token": "<pad>", "inner": [{"secret": ["x"]}],
            "url": "s3://u:p@bucket/x", "token": 7, "command": ["x", "--token", "abc"],
            "packages": {"google-auth": "2.3", "x": "1 @ https://u:p@h/x"},
        });
        hide("params", &mut value);
        let expected = json!({
            "api_key": "***", "max_tokens": 5, "pad_token": "<pad>", "inner": [{"secret": ["***"]}],
            "url": "s3://bucket/x", "token": 7, "command": ["x", "--token", "***"],
            "packages": {"google-auth": "2.3", "x": "1 @ https://h/x"},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn each_part_of_a_long_text_is_looked_at_a_few_times_only() {
        let unit =
            ["a,", "a:", "token::", "a://b,", "a ", "-a ", "\\\"a", "token=", "--token ", "a@"];
        for unit in unit {
            let long = unit.repeat((128 << 10) / unit.len());
            let shown = text(&long);
            assert!(shown.len() <= 2 * long.len(), "{unit}");
        }
    }

    #[test]
    fn any_text_may_come() {
        let parts =
            ["token", "=", ":", "\"", "'", "\\", " ", "--", "://", "@", "é", "a", ",", "\n"];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut line = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                line += parts[(state >> 33) as usize % parts.len()];
            }
            let hidden = text(&line);
            assert_eq!(text(&hidden), hidden, "of {line:?}");
            command(&[line.clone(), line]);
        }
    }
}
