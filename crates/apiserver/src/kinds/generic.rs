//! Kinds without rules of their own.

use coracle_base::Now;
use serde_json::Value;

use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};

/// The strategy of a kind that adds nothing: no defaults, no checks, and the columns of Kubernetes' default convertor.
#[derive(Debug)]
pub(crate) struct GenericStrategy;

const COLUMNS: &[Column] = &[table::NAME, table::column("Created At", "date", descriptions::AGE)];

impl Strategy for GenericStrategy {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Now) -> Row {
        table::row([table::name(object), object["metadata"]["creationTimestamp"].clone()])
    }
}
