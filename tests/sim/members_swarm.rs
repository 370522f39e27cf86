//! Faults of members and of the network between them, drawn from a seed: a phase in which nothing may go wrong, then one in which
//! everything must come right.
//!
//! `CORACLE_SIM_SEED=7` runs that seed alone; `CORACLE_SIM_SEEDS=1000` runs so many.

use std::time::Duration;

use coracle_sim::{MemberId, Outcome, Rng, Side, TestCluster, Totals, Wants, Weather};

/// How many seeds are tried when nobody says.
const SEEDS: u64 = 10;
/// How many registers the clients write, and how many operations they make.
const REGISTERS: u64 = 4;
const OPERATIONS: u64 = 200;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let all = 1..=number("CORACLE_SIM_SEEDS").unwrap_or(SEEDS);
    number("CORACLE_SIM_SEED").map_or_else(|| all.collect(), |seed| vec![seed])
}

fn pick(rng: &mut Rng, members: &[MemberId]) -> MemberId {
    members[rng.below(members.len() as u64) as usize]
}

fn millis(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.below(most))
}

/// A write that is not whole when the power goes.
fn crash_while_it_writes(c: &mut TestCluster, member: MemberId) {
    for _ in 0..300 {
        if c.is_writing(member) {
            break;
        }
        c.advance_events(1);
    }
    c.crash(member);
}

/// One fault, or the end of one.
fn fault(c: &mut TestCluster, rng: &mut Rng) {
    let (all, running) = (c.member_ids(), c.running_members());
    let down: Vec<MemberId> = all.iter().copied().filter(|id| !running.contains(id)).collect();
    match rng.below(12) {
        0 if running.len() > 1 => c.crash(pick(rng, &running)),
        1 if running.len() > 1 => crash_while_it_writes(c, pick(rng, &running)),
        2 | 3 if !down.is_empty() => c.restart(pick(rng, &down)),
        4 => c.cut(pick(rng, &all), Side::All),
        5 => c.cut_one_way(pick(rng, &all), Side::All),
        6 => c.cut(pick(rng, &all), Side::One(pick(rng, &all))),
        7 | 8 => c.heal(),
        9 if !running.is_empty() => {
            let time = millis(rng, 4_000);
            c.pause(pick(rng, &running), time);
        }
        10 => {
            let ahead = millis(rng, 60_000);
            c.set_clock(pick(rng, &all), ahead);
        }
        11 if !running.is_empty() => c.transfer_lead(pick(rng, &running)),
        _ => {
            let loss = rng.below(80);
            let delay = Duration::from_millis(1 + rng.below(50));
            c.weather(Weather { loss, duplicates: rng.below(80), delay });
        }
    }
}

fn run(seed: u64) -> Totals {
    let mut rng = Rng::seeded(seed ^ 0x73_7761_726d);
    let snapshot_after = if rng.below(2) == 0 { 16 << 10 } else { 64 << 20 };
    let mut c = TestCluster::members(3).seed(seed).snapshot_after(snapshot_after).tail(rng.below(20)).build();
    if rng.below(2) == 0 {
        c.join(if rng.below(2) == 0 { Wants::Voter } else { Wants::Auto });
    }
    let mut next = 0;
    for _ in 0..OPERATIONS {
        let members = c.member_ids();
        let register = format!("r{}", rng.below(REGISTERS));
        let member = pick(&mut rng, &members);
        if rng.below(2) == 0 {
            next += 1;
            c.via(member).put(&register, next);
        } else {
            c.via(member).read(&register);
        }
        // A fault comes in the middle of whatever is going on.
        c.advance_events(rng.below(60));
        if rng.below(8) == 0 {
            fault(&mut c, &mut rng);
        }
        let pause = millis(&mut rng, 600);
        c.advance(pause);
    }
    c.heal();
    c.weather(Weather::default());
    let running = c.running_members();
    for member in c.member_ids() {
        if !running.contains(&member) {
            c.restart(member);
        }
    }
    c.advance(Duration::from_secs(15));
    c.run_until_members_agree();
    let last = c.put("last", seed);
    assert!(matches!(last, Outcome::Acknowledged(_)), "a healed cluster takes no write: {last:?}");
    for member in c.member_ids() {
        assert_eq!(c.read(member, "last"), Some(seed));
        for register in 0..REGISTERS {
            c.read(member, &format!("r{register}"));
        }
    }
    assert!(c.history().records().iter().all(|record| record.outcome != Outcome::Pending), "a request has no end");
    c.history().check_linearizable();
    c.totals()
}

#[test]
#[expect(clippy::print_stdout, reason = "what a run met is to be seen")]
fn members_that_die_stall_and_lose_each_other_stay_one_cluster() {
    let mut totals = Totals::default();
    let seeds = seeds();
    for seed in &seeds {
        totals = totals.plus(&run(*seed));
    }
    println!("{} seeds: {totals}", seeds.len());
    if seeds.len() >= SEEDS as usize {
        for (class, number) in totals.classes() {
            assert!(number > 0, "no run had any {class}: {totals}");
        }
    }
}
