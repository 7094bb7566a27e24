//! `SHA256SUMS`: what `sha256sum -c` reads.

use std::os::unix::ffi::OsStrExt;

use super::Described;

/// A line a file. Names with a backslash, newline or carriage return are escaped as coreutils does, and
/// their lines begin with a backslash.
pub(super) fn text(described: &Described) -> Vec<u8> {
    let mut text = Vec::new();
    for file in &described.files {
        let name = file.path.as_os_str().as_bytes();
        let escaped = escape(name);
        if escaped != name {
            text.push(b'\\');
        }
        text.extend_from_slice(file.sha256.as_bytes());
        text.extend_from_slice(b"  ");
        text.extend_from_slice(&escaped);
        text.push(b'\n');
    }
    text
}

fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            other => escaped.push(*other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::samples::described;

    #[test]
    fn odd_names_are_escaped_as_coreutils_does() {
        let text = String::from_utf8(super::text(&described())).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let digest = "ab".repeat(32);
        assert_eq!(lines[0], format!("\\{digest}  b/odd\\nname"));
        assert_eq!(lines[2], format!("{digest}  model.onnx"));
    }
}
