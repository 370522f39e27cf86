//! What a request asks for: the path and the method read as Kubernetes' `RequestInfo`, and the query as typed options.
//!
//! Nothing here looks at a view or at a body.

pub(crate) mod negotiate;
pub(crate) mod options;
pub(crate) mod path;

use coracle_api::{Method, Request};

pub(crate) use path::ResourcePath;

/// What is done to a resource: the verbs of discovery and of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// GET of a collection with `watch`.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

impl Verb {
    /// The verb of a method on a resource path; `None` for a method that no resource has.
    pub(crate) fn of(request: &Request, path: &ResourcePath) -> Option<Self> {
        let collection = path.name.is_empty();
        Some(match request.method {
            Method::Get | Method::Head if !collection => Self::Get,
            Method::Get | Method::Head if path.watch || options::flag(request, "watch") => Self::Watch,
            Method::Get | Method::Head => Self::List,
            Method::Post => Self::Create,
            Method::Put => Self::Update,
            Method::Patch => Self::Patch,
            Method::Delete if collection => Self::DeleteCollection,
            Method::Delete => Self::Delete,
            Method::Options => return None,
        })
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether an object's path has it (a collection has the others).
    pub(crate) fn fits(self, path: &ResourcePath) -> bool {
        let subresource = !path.subresource.is_empty();
        match self {
            Self::List | Self::Watch | Self::DeleteCollection => path.name.is_empty(),
            Self::Create => path.name.is_empty() != subresource,
            Self::Get | Self::Update | Self::Patch | Self::Delete => !path.name.is_empty(),
        }
    }
}

/// The lower-case method, as messages about paths without a resource name it.
pub(crate) fn method_word(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Head => "head",
        Method::Options => "options",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
    }
}
