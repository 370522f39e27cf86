//! Questions to the world in the middle of a request, and what becomes of their answers.
//!
//! The API server asks as plain data; the driver carries a question out, and a simulation answers it from a script.

use coracle_api::{Response, Status};
use coracle_base::Now;
use coracle_store::View;
use serde_json::{Value, json};

use crate::answer::value_response;
use crate::metrics::Question;
use crate::request::negotiate::Encoding;
use crate::review::user_info;
use crate::service_account::{self, ISSUER};

/// A question to the world, as plain data: signing and token reviews come here.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Callout {
    /// Sign these claims with the key of the cluster's ServiceAccount tokens. The answer is the token, a text.
    SignToken {
        /// The claims of the token.
        claims: Value,
    },
    /// Check the signature of a bearer token of any kind. The answer is `{"claims": ...}` for a token of that key,
    /// `{"user": {"username": ..., "uid": ..., "groups": [...]}}` for any other whose user is known, and null for an unknown one.
    CheckToken {
        /// The token.
        token: String,
    },
    /// Ask all nodes that can be reached what they use. The answer is a list of [`NodeUsage`](crate::NodeUsage).
    Usage,
}

/// What a request waits for, and what it will answer.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The object that is answered, but for what the callout says.
    pub(crate) object: Value,
    /// How the answer is written.
    pub(crate) encoding: Encoding,
    /// What is made of the callout's answer.
    pub(crate) purpose: Purpose,
}

/// What is made of a callout's answer.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The token of a TokenRequest.
    Token,
    /// The status of a TokenReview.
    Review,
    /// Metrics of nodes or pods.
    Usage(Box<Question>),
}

impl Asked {
    /// The answer to the client.
    pub(crate) fn answer(mut self, outcome: Result<Value, Status>, view: &View, now: Now) -> Response {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(status) => return status.into(),
        };
        match self.purpose {
            Purpose::Token => self.object["status"]["token"] = answer,
            Purpose::Usage(question) => return question.answer(answer, view, now),
            Purpose::Review => self.object["status"] = review(&self.object["spec"], &answer, view, now),
        }
        value_response(self.encoding, 201, &self.object)
    }
}

/// The status of a TokenReview.
fn review(spec: &Value, answer: &Value, view: &View, now: Now) -> Value {
    let stated: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let audiences = if stated.is_empty() { vec![ISSUER] } else { stated };
    if answer["user"].is_object() {
        // Other tokens are for the API server alone.
        return if audiences.contains(&ISSUER) {
            json!({ "authenticated": true, "user": answer["user"], "audiences": [ISSUER] })
        } else {
            json!({ "user": {}, "error": "the token is not for these audiences" })
        };
    }
    if answer["claims"].is_null() {
        return json!({ "user": {}, "error": "invalid bearer token" });
    }
    match service_account::user_of(&answer["claims"], view, now.wall, &audiences) {
        Ok((user, shared)) => json!({ "authenticated": true, "user": user_info(&user), "audiences": shared }),
        Err(why) => json!({ "user": {}, "error": format!("[invalid bearer token, {why}]") }),
    }
}
