//! NodeMetrics and PodMetrics: their Tables. Nobody writes them, and nobody stores them.

use coracle_api::Quantity;
use coracle_base::Now;
use serde_json::Value;

use super::table;
use super::value::{items, text};
use crate::strategy::{Column, Row, Strategy};

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("cpu", "string", "What it used of a processor over the window, in cores"),
    table::column("memory", "string", "Bytes of memory that it has"),
    table::column("Window", "string", "How long was measured"),
];

/// The strategy of NodeMetrics.
#[derive(Debug)]
pub(crate) struct NodeMetricsStrategy;

impl Strategy for NodeMetricsStrategy {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Now) -> Row {
        let usage = &object["usage"];
        table::row([table::name(object), usage["cpu"].clone(), usage["memory"].clone(), text(object, "window").into()])
    }
}

/// The strategy of PodMetrics: a row has the sums of its containers.
#[derive(Debug)]
pub(crate) struct PodMetricsStrategy;

impl Strategy for PodMetricsStrategy {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Now) -> Row {
        let amounts = |resource: &str| -> Vec<Quantity> {
            let of = items(object, "containers").iter();
            of.filter_map(|container| container["usage"][resource].as_str()?.parse().ok()).collect()
        };
        let cpu: i64 = amounts("cpu").into_iter().map(Quantity::millis).sum();
        let memory: i64 = amounts("memory").into_iter().map(Quantity::units).sum();
        let (cpu, memory) = (format!("{cpu}m"), format!("{}Ki", memory >> 10));
        table::row([table::name(object), cpu.into(), memory.into(), text(object, "window").into()])
    }
}
