//! ServiceAccounts.

use coracle_base::Now;
use serde_json::Value;

use super::table;
use crate::strategy::{Column, Row, Strategy};

/// The strategy of ServiceAccounts: nothing beyond metadata is checked.
#[derive(Debug)]
pub(crate) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn columns(&self) -> &'static [Column] {
        &[table::NAME, table::AGE]
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row([table::name(object), table::age(object, now)])
    }
}
