//! Image references: which names are valid, and the one canonical spelling of each.
//!
//! The rules are those of Docker's `reference` package: `web` means `docker.io/library/web:latest`.

/// The registry of a name that says none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The folder of a one-part name at the default registry.
const DEFAULT_FOLDER: &str = "library";
/// The tag of a name that says neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The longest repository, domain included.
const REPOSITORY_LENGTH_MAX: usize = 255;
/// The longest tag.
const TAG_LENGTH_MAX: usize = 128;

/// The canonical spelling of an image reference, or what is wrong with it in Docker's words.
///
/// # Examples
///
/// ```
/// assert_eq!(coracle_node::canonical_image_name("web").unwrap(), "docker.io/library/web:latest");
/// ```
pub fn canonical_image_name(name: &str) -> Result<String, &'static str> {
    const FORMAT: &str = "invalid reference format";
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
        Some(_) => return Err(FORMAT),
        None => (name, None),
    };
    let (domain, remainder) = match rest.split_once('/') {
        Some((first, remainder)) if is_domain(first) => (first, remainder),
        _ => (DEFAULT_DOMAIN, rest),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let (path, tag) = match remainder.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (remainder, None),
    };
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    let valid_tag = tag.is_none_or(is_tag);
    if !valid_tag || !is_host(domain) || !path.split('/').all(is_component) {
        return Err(FORMAT);
    }
    let folder = if domain == DEFAULT_DOMAIN && !path.contains('/') { DEFAULT_FOLDER } else { "" };
    let separator = if folder.is_empty() { "" } else { "/" };
    let repository = format!("{domain}/{folder}{separator}{path}");
    if repository.len() > REPOSITORY_LENGTH_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = match (tag, digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, None) => format!(":{DEFAULT_TAG}"),
        (None, Some(_)) => String::new(),
    };
    Ok(format!("{repository}{tag}{}", digest.map(|digest| format!("@{digest}")).unwrap_or_default()))
}

/// Whether the first part of a name is a registry: it has a dot or a port, or is `localhost`, or has upper-case letters.
fn is_domain(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').unwrap_or((domain, "0"));
    let label = |label: &str| {
        let inside = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, with single dots, one or two underscores, or dashes between them.
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(alphanumeric));
    let separators = bytes.split(alphanumeric).filter(|run| !run.is_empty());
    ends && separators.into_iter().all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_the_default_registry_folder_and_tag() {
        let canonical = |name| canonical_image_name(name).unwrap();
        assert_eq!(canonical("web"), "docker.io/library/web:latest");
        assert_eq!(canonical("web:v1"), "docker.io/library/web:v1");
        assert_eq!(canonical("me/web"), "docker.io/me/web:latest");
        assert_eq!(canonical("index.docker.io/web"), "docker.io/library/web:latest");
        assert_eq!(canonical("localhost:5000/web"), "localhost:5000/web:latest");
        assert_eq!(canonical("coracle.dev/examples/web:v1"), "coracle.dev/examples/web:v1");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(canonical(&format!("web@{digest}")), format!("docker.io/library/web@{digest}"));
    }

    #[test]
    fn malformed_names_are_refused_in_dockers_words() {
        for name in ["", "Web", "web:", "web:-1", "a//b", "-a", "a___b", "web@sha256:1", "a b", "re.gistry:/web"] {
            assert!(canonical_image_name(name).unwrap_err().starts_with("invalid reference format"), "{name}");
        }
        let long = "a".repeat(250);
        assert_eq!(canonical_image_name(&long).unwrap_err(), "repository name must not be more than 255 characters");
    }
}
