//! NetworkPolicies.

use std::net::IpAddr;

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::{Value, json};

use super::table;
use super::value::{default, default_zero, items, items_mut, object_mut, text};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::label::check_selector;
use crate::validation::name::{port_name, port_number};

/// The strategy of NetworkPolicies.
#[derive(Debug)]
pub(crate) struct NetworkPolicyStrategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Pod-Selector",
        "string",
        "The pods that the policy is about; an empty selector means all of the namespace.",
    ),
    table::AGE,
];

impl Strategy for NetworkPolicyStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        for direction in ["ingress", "egress"] {
            for rule in items_mut(spec, direction) {
                for port in items_mut(rule, "ports") {
                    default_zero(port, "protocol", "TCP");
                }
            }
        }
        if items(spec, "policyTypes").is_empty() {
            let types =
                if items(spec, "egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            super::value::set(spec, "policyTypes", types);
        }
        default(spec, "podSelector", json!({}));
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let mut causes = Causes::new();
        check_selector(&spec["podSelector"], &path.child("podSelector"), &mut causes);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (index, rule) in items(spec, direction).iter().enumerate() {
                let at = path.child(direction).index(index);
                for (index, port) in items(rule, "ports").iter().enumerate() {
                    check_port(port, &at.child("ports").index(index), &mut causes);
                }
                for (index, peer) in items(rule, peers).iter().enumerate() {
                    check_peer(peer, &at.child(peers).index(index), &mut causes);
                }
            }
        }
        let (types, at) = (items(spec, "policyTypes"), path.child("policyTypes"));
        if types.len() > 2 {
            causes.invalid(&at, spec["policyTypes"].clone(), "may not specify more than two policyTypes");
        } else {
            for (index, kind) in types.iter().enumerate() {
                causes.one_of(&at.index(index), kind.as_str().unwrap_or_default(), &["Egress", "Ingress"]);
            }
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let selector = table::selector(&object["spec"]["podSelector"]);
        table::row([table::name(object), table::or(&selector, "<none>").into(), table::age(object, now)])
    }
}

fn check_port(port: &Value, path: &FieldPath, causes: &mut Causes) {
    causes.one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    let at = path.child("port");
    let first = match &port["port"] {
        Value::String(name) => {
            causes.invalid_each(&at, name.as_str(), port_name(name));
            None
        }
        Value::Null => None,
        number => {
            let number = number.as_i64().unwrap_or(0);
            causes.invalid_each(&at, number, port_number(number));
            Some(number)
        }
    };
    let Some(last) = port["endPort"].as_i64() else { return };
    let at = path.child("endPort");
    match (&port["port"], first) {
        (Value::Null, _) => causes.invalid(&at, last, "may not be specified when `port` is not specified"),
        (Value::String(_), _) => causes.invalid(&at, last, "may not be specified when `port` is non-numeric"),
        (_, Some(first)) if last < first => causes.invalid(&at, last, "must be greater than or equal to `port`"),
        _ => causes.invalid_each(&at, last, port_number(last)),
    }
}

fn check_peer(peer: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut others = 0;
    for field in ["podSelector", "namespaceSelector"].into_iter().filter(|field| !peer[*field].is_null()) {
        others += 1;
        check_selector(&peer[field], &path.child(field), causes);
    }
    let block = &peer["ipBlock"];
    match (others, block.is_null()) {
        (0, true) => causes.required(path, "must specify a peer"),
        (0, false) => check_block(block, &path.child("ipBlock"), causes),
        (_, false) => causes.forbidden(path, "may not specify both ipBlock and another peer"),
        (_, true) => {}
    }
}

fn check_block(block: &Value, path: &FieldPath, causes: &mut Causes) {
    const WRONG: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let (cidr, at) = (text(block, "cidr"), path.child("cidr"));
    if cidr.is_empty() {
        return causes.required(&at, "");
    }
    let Some(whole) = range(cidr) else { return causes.invalid(&at, cidr, WRONG) };
    for (index, except) in items(block, "except").iter().enumerate() {
        let (text, at) = (except.as_str().unwrap_or_default(), path.child("except").index(index));
        match range(text) {
            None => causes.invalid(&at, text, WRONG),
            Some(part) if !is_strictly_within(part, whole) => {
                causes.invalid(&at, text, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

/// The first bits of an address that count, and how many there are of how many.
fn range(text: &str) -> Option<(u128, u32, u32)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    let (bits, width) = match address.parse().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    (prefix <= width).then_some((bits, prefix, width))
}

fn is_strictly_within(part: (u128, u32, u32), whole: (u128, u32, u32)) -> bool {
    let kept = |bits: u128| bits.checked_shr(whole.2 - whole.1).unwrap_or(0);
    part.2 == whole.2 && part.1 > whole.1 && kept(part.0) == kept(whole.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[track_caller]
    fn check(rule: Value, expected: &[&str]) {
        let mut object = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [rule]}});
        NetworkPolicyStrategy.default(&mut object);
        assert_eq!(texts(NetworkPolicyStrategy.validate(&object, None, "")), expected);
    }

    #[test]
    fn a_policy_is_about_ingress_and_with_rules_for_it_about_egress() {
        let types = |spec: Value| {
            let mut object = json!({ "spec": spec });
            NetworkPolicyStrategy.default(&mut object);
            object["spec"]["policyTypes"].clone()
        };
        assert_eq!(types(json!({"podSelector": {}})), json!(["Ingress"]));
        assert_eq!(types(json!({"podSelector": {}, "egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Egress"]})), json!(["Egress"]));
    }

    #[test]
    fn ports_and_their_ranges_are_checked() {
        let at = "spec.ingress[0].ports[0]";
        check(json!({"ports": [{"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}, {}]}), &[]);
        let wrong = |why: &str| format!("{at}.endPort: Invalid value: 70: {why}");
        check(json!({"ports": [{"port": 80, "endPort": 70}]}), &[&wrong("must be greater than or equal to `port`")]);
        check(json!({"ports": [{"endPort": 70}]}), &[&wrong("may not be specified when `port` is not specified")]);
        check(
            json!({"ports": [{"port": "http", "endPort": 70}]}),
            &[&wrong("may not be specified when `port` is non-numeric")],
        );
    }

    #[test]
    fn a_peer_is_a_range_or_selectors() {
        let at = "spec.ingress[0].from[0]";
        check(
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"podSelector": {}}]}),
            &[],
        );
        check(json!({"from": [{}]}), &[&format!("{at}: Required value: must specify a peer")]);
        check(
            json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
            &[&format!("{at}: Forbidden: may not specify both ipBlock and another peer")],
        );
        check(
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "11.0.0.0/16"]}}]}),
            &[
                &format!("{at}.ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"),
                &format!("{at}.ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"),
            ],
        );
        check(
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}),
            &[&format!(
                "{at}.ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            )],
        );
    }

    #[test]
    fn the_row_shows_the_selector() {
        let object = |selector: Value| json!({"metadata": {"name": "p"}, "spec": {"podSelector": selector}});
        let shown = |selector: Value| cells(&NetworkPolicyStrategy, &object(selector));
        assert_eq!(shown(json!({})), json!(["p", "<none>", "<unknown>"]));
        assert_eq!(shown(json!({"matchLabels": {"app": "web"}})), json!(["p", "app=web", "<unknown>"]));
    }
}
