//! Content negotiation: which representation an `Accept` header asks for, and which a body is in.

use coracle_api::{Reason, Request, Status, StatusDetails};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`; also what clients that ask for protobuf get, since they go by the answer's content type.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// What an answer shows of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole objects.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata, or its list.
    Partial,
}

/// What a Table's rows carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// No object.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// The representation that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// The media type.
    pub(crate) media: Media,
    /// The form.
    pub(crate) form: Form,
    /// For Tables.
    pub(crate) include: IncludeObject,
    /// Whether JSON is indented.
    pub(crate) pretty: bool,
}

impl Encoding {
    /// Plain JSON.
    pub(crate) const JSON: Self =
        Self { media: Media::Json, form: Form::Object, include: IncludeObject::Metadata, pretty: false };

    /// The content type of an answer in it.
    pub(crate) fn content_type(self) -> &'static str {
        match self.media {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
        }
    }
}

/// One clause of an `Accept` header.
#[derive(Debug)]
pub(crate) struct Clause<'a> {
    /// `type/subtype`, in lower case as sent.
    pub(crate) media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    /// A parameter's value; empty where it is absent.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of an `Accept` header, best first: by quality, then by position.
pub(crate) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().filter(|media| !media.is_empty())?;
            let params: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let quality = params.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
            Some(Clause { media, params, quality })
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// Picks the representation of an object, or of a list where `list` says so.
pub(crate) fn negotiate(request: &Request, list: bool) -> Result<Encoding, Status> {
    let pretty = pretty(request);
    let include = match request.param("includeObject") {
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    };
    let accept = request.accept.as_deref().unwrap_or_default().trim();
    if accept.is_empty() {
        return Ok(Encoding { include, pretty, ..Encoding::JSON });
    }
    for clause in clauses(accept) {
        let media = match clause.media {
            "application/json" | "*/*" | "application/*" | "application/vnd.kubernetes.protobuf" => Media::Json,
            "application/yaml" => Media::Yaml,
            _ => continue,
        };
        let meta = clause.param("g") == "meta.k8s.io" && clause.param("v") == "v1";
        let form = match clause.param("as") {
            "" => Form::Object,
            "Table" if meta => Form::Table,
            "PartialObjectMetadata" if meta && !list => Form::Partial,
            "PartialObjectMetadataList" if meta && list => Form::Partial,
            _ => continue,
        };
        return Ok(Encoding { media, form, include, pretty });
    }
    Err(not_acceptable())
}

/// 406, with what would be accepted.
pub(crate) fn not_acceptable() -> Status {
    let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
        application/vnd.kubernetes.protobuf";
    Status::failure(406, Some(Reason::NotAcceptable), message).with_details(StatusDetails::default())
}

/// Whether JSON is indented: by the `pretty` parameter, or because a person seems to look.
pub(crate) fn pretty(request: &Request) -> bool {
    if request.param("pretty").is_some() {
        return super::options::flag(request, "pretty");
    }
    let agent = request.user_agent.as_deref().unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|person| agent.starts_with(person))
}

/// What a body is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyMedia {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf in Kubernetes' envelope.
    Protobuf,
}

/// The media type of a body; without a `Content-Type` it is JSON.
pub(crate) fn body_media(request: &Request) -> Result<BodyMedia, Status> {
    match media_type(request) {
        "" | "application/json" => Ok(BodyMedia::Json),
        "application/yaml" => Ok(BodyMedia::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyMedia::Protobuf),
        _ => Err(Status::failure(
            415,
            Some(Reason::UnsupportedMediaType),
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// `Content-Type` without its parameters.
pub(crate) fn media_type(request: &Request) -> &str {
    request.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use coracle_api::{Method, UserInfo};

    use super::*;

    fn asked(accept: &str, list: bool) -> Result<(Media, Form), u16> {
        let mut request = Request::new(Method::Get, "/", UserInfo::anonymous());
        request.accept = Some(accept.into());
        negotiate(&request, list).map(|e| (e.media, e.form)).map_err(|status| status.code)
    }

    #[test]
    fn a_clause_that_cannot_be_honoured_is_skipped() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(asked(table, true), Ok((Media::Json, Form::Table)));
        assert_eq!(
            asked("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", true),
            Ok((Media::Json, Form::Object))
        );
        assert_eq!(asked("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", false), Err(406));
        assert_eq!(asked("text/html", false), Err(406));
    }

    #[test]
    fn quality_orders_the_clauses() {
        assert_eq!(asked("application/json;q=0.5, application/yaml", false), Ok((Media::Yaml, Form::Object)));
        assert_eq!(asked("*/*", false), Ok((Media::Json, Form::Object)));
    }
}
