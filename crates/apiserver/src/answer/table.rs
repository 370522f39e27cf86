//! `meta.k8s.io/v1` Table: what `kubectl get` prints.

use coracle_api::Object;
use serde_json::Value;

use super::{ListMeta, Presenter, write_partial};
use crate::request::negotiate::IncludeObject;
use crate::strategy::{Column, Row};

impl Presenter<'_> {
    /// Appends a Table of one object.
    pub(crate) fn write_table(&self, object: &Object, out: &mut Vec<u8>) {
        self.write_table_head(&ListMeta { revision: object.revision(), ..ListMeta::default() }, out);
        self.write_row(object, out);
        out.extend_from_slice(b"]}");
    }

    /// Appends a Table up to its first row.
    pub(super) fn write_table_head(&self, meta: &ListMeta, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        meta.write(out);
        out.extend_from_slice(br#","columnDefinitions":"#);
        write_columns(self.strategy.columns(), out);
        out.extend_from_slice(br#","rows":["#);
    }

    /// Appends the Table of one watch event; the columns are told once in a watch.
    pub(crate) fn write_event_table(&self, object: &Object, columns: bool, out: &mut Vec<u8>) {
        if columns {
            return self.write_table(object, out);
        }
        let head = format!(
            r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{{"resourceVersion":"{}"}},"columnDefinitions":null,"rows":["#,
            object.revision()
        );
        out.extend_from_slice(head.as_bytes());
        self.write_row(object, out);
        out.extend_from_slice(b"]}");
    }

    /// Appends the Table of a bookmark: an empty row whose object carries the bookmark's metadata.
    pub(crate) fn write_bookmark_table(&self, metadata: &Value, out: &mut Vec<u8>) {
        let empty = serde_json::json!({ "metadata": {} });
        let cells = Value::Array(self.strategy.row(&empty, self.now).cells);
        let table = serde_json::json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": metadata["resourceVersion"] },
            "columnDefinitions": null,
            "rows": [{
                "cells": cells,
                "object": { "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata },
            }],
        });
        out.extend_from_slice(table.to_string().as_bytes());
    }

    /// Appends a row.
    pub(super) fn write_row(&self, object: &Object, out: &mut Vec<u8>) {
        let value = object.fields(self.strategy.row_fields());
        let Row { cells, conditions } = self.strategy.row(&value, self.now);
        out.extend_from_slice(br#"{"cells":"#);
        write_values(&cells, out);
        if !conditions.is_empty() {
            out.extend_from_slice(br#","conditions":"#);
            write_values(&conditions, out);
        }
        match self.encoding.include {
            IncludeObject::None => out.extend_from_slice(br#","object":null"#),
            IncludeObject::Metadata => {
                out.extend_from_slice(br#","object":"#);
                write_partial(object, out);
            }
            IncludeObject::Object => {
                out.extend_from_slice(br#","object":"#);
                self.write_whole(object, Some(&self.resource.gvk), out);
            }
        }
        out.push(b'}');
    }
}

fn write_values(values: &[Value], out: &mut Vec<u8>) {
    serde_json::to_writer(out, values).expect("values are written to memory");
}

fn write_columns(columns: &[Column], out: &mut Vec<u8>) {
    let list: Vec<Value> = columns
        .iter()
        .map(|column| {
            serde_json::json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect();
    write_values(&list, out);
}
