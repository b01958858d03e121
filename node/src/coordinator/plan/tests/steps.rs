//! Truth tables: a cluster, and the steps that follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::words::{Cluster, UNIX_MS, name_of, node, replica_id, shard};
use crate::cluster::view::{Node, Shard};
use crate::coordinator::plan::{CandidateReport, DrainProgress, Settings, drain_progress, elect};
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::table::TableState;

const NOTHING: [&str; 0] = [];

#[test]
fn a_cluster_as_it_should_be_is_left_alone() {
    assert_eq!(Cluster::new("a b c", 2, &["a* b", "b* c", "c* a"]).plan(), NOTHING);
    assert_eq!(Cluster::new("a b", 1, &["a*", "b*"]).plan(), NOTHING);
    assert_eq!(Cluster::new("a", 1, &[]).plan(), NOTHING);
}

#[test]
fn somebody_is_elected_when_nobody_leads_and_somebody_may() {
    let plan = |copies: &str| Cluster::new("a b", 2, &[copies]).plan();
    assert_eq!(plan("a* b"), NOTHING);
    assert_eq!(plan("a^ b"), ["elect 0"], "a new session of the node");
    assert_eq!(plan("z* b"), ["elect 0"], "the node is gone");
    assert_eq!(plan("a*! b"), ["elect 0 without a"], "its disk is broken");
    assert_eq!(plan("a b"), ["elect 0"], "there is none");
    assert_eq!(plan("z* b-"), NOTHING, "only a copy out of sync is left");
    assert_eq!(plan("z* b!"), NOTHING, "only a damaged one is");
    assert_eq!(plan("z* b?"), NOTHING, "only a learner is");
    assert_eq!(plan("z* bx"), NOTHING, "only one that leaves is");
    assert_eq!(Cluster::new("a b", 2, &["z* b"]).suspect("b").plan(), ["elect 0"], "it may still answer");
}

#[test]
fn shards_that_are_being_made_or_deleted_are_left_alone() {
    let deleting = Cluster::new("a b", 2, &["z* b", "a*"]).in_state(TableState::Deleting);
    assert_eq!(deleting.plan(), NOTHING);
    let mut fresh = Cluster::new("a b", 2, &["z? b?"]).gone("z", 60);
    let mut record = shard(0, "z? b?");
    record.epoch = Epoch(0);
    fresh.view.shards.insert(record.id, Arc::new(record));
    assert_eq!(fresh.plan(), NOTHING);
    let creating = Cluster::new("a b c", 2, &["z* b"]).in_state(TableState::Creating);
    assert_eq!(creating.plan(), ["elect 0"]);
}

#[test]
fn a_node_that_is_away_for_a_while_loses_its_primaries_only() {
    let cluster = |minutes| Cluster::new("a b c", 2, &["b* a", "a* c", "c* b"]).gone("b", minutes);
    assert_eq!(cluster(9).plan(), ["elect 0"]);
    assert_eq!(cluster(10).plan(), ["elect 0 without b", "add 2 a for b"]);
    let forgotten = Cluster { gone_since: BTreeMap::new(), ..cluster(10) };
    assert_eq!(forgotten.plan(), ["elect 0"], "a new Master has just noticed");
    let mut back = Cluster::new("a b c", 2, &["b* a", "a* c", "c* b"]);
    back.gone_since.insert(node("b"), std::time::Duration::ZERO);
    assert_eq!(back.plan(), NOTHING, "it is there again");
}

#[test]
fn a_copy_that_is_lost_is_replaced_and_then_retired() {
    let plan = |copies: &str| Cluster::new("a c d", 2, &[copies]).gone("b", 10).plan();
    assert_eq!(plan("a* b"), ["add 0 c for b"]);
    assert_eq!(plan("a* b-"), ["add 0 c for b"]);
    assert_eq!(plan("a*"), ["add 0 c"]);
    assert_eq!(plan("a* b c?>b"), NOTHING, "one is in motion");
    assert_eq!(plan("a* b c->b"), NOTHING, "the new one fell behind");
    assert_eq!(plan("a* b c>b"), ["retire 0 b"]);
    assert_eq!(plan("a* b- c>b"), ["retire 0 b"]);
    assert_eq!(plan("a* bx c"), ["withdraw 0 b"]);
    assert_eq!(plan("a^ b"), ["elect 0 without b"], "nobody could send a copy");
    let more = Settings { incoming_per_node: 9, outgoing_per_node: 9, ..Settings::default() };
    let three = Cluster::new("a c d e", 3, &["a* b c?>b"]).gone("b", 10).with(more);
    assert_eq!(three.plan(), NOTHING, "one after the other");
    let drained = Cluster::new("a c d", 3, &["a* c b"]).gone("b", 10).draining("c");
    assert_eq!(drained.plan(), ["add 0 d for b"], "what is lost comes before what is drained");
}

#[test]
fn a_damaged_copy_is_replaced_at_home_if_that_is_best() {
    let plan = |nodes: &str, copies: &str| Cluster::new(nodes, 2, &[copies]).plan();
    assert_eq!(plan("a b", "a* b!"), ["add 0 b for b"], "the only place");
    assert_eq!(plan("a b c", "a* b-!"), ["add 0 b for b"], "where the others are not too many");
    assert_eq!(plan("a b c", "a* b! b2?>b"), NOTHING);
    assert_eq!(plan("a b c", "a* b! b2>b"), ["retire 0 b"]);
    assert_eq!(plan("a b c", "a* b!- b2"), ["retire 0 b"]);
    assert_eq!(plan("a b c", "a* b bx"), NOTHING, "its node sees to it");
    assert_eq!(plan("a b c", "a* b c?!"), ["retire 0 c"]);
}

#[test]
fn the_last_copies_are_never_retired() {
    let plan = |nodes: &str, replicas: u32, copies: &str| Cluster::new(nodes, replicas, &[copies]).plan();
    assert_eq!(plan("a", 1, "a*!"), NOTHING);
    assert_eq!(plan("a b", 3, "a* b"), NOTHING, "nowhere to go");
    assert_eq!(plan("a b c", 2, "a* b- c-"), NOTHING, "not enough are in sync");
    assert_eq!(plan("a b c", 2, "a^ b c"), ["elect 0"], "first somebody has to lead");
    let suspects = Cluster::new("a b c", 2, &["a* b c"]).suspect("b").suspect("c");
    assert_eq!(suspects.plan(), NOTHING, "copies on suspects do not count");
    assert_eq!(plan("a b c d", 2, "a* b! c! d?>b"), NOTHING, "nor do damaged ones");
}

#[test]
fn a_node_that_could_not_take_a_copy_in_gets_no_other_one() {
    assert_eq!(Cluster::new("a b c", 2, &["a*"]).unfit("b").plan(), ["add 0 c"]);
    assert_eq!(Cluster::new("a b", 2, &["a*"]).unfit("b").plan(), NOTHING);
    assert_eq!(Cluster::new("a b c", 2, &["a* c?!"]).unfit("c").plan(), ["retire 0 c"]);
    let uneven = Cluster::new("a b c", 1, &["a*", "a*", "b*", "b*"]).unfit("c");
    assert_eq!(uneven.plan(), NOTHING, "nor are others moved there");
    assert_eq!(Cluster::new("a b", 2, &["a* b"]).unfit("b").plan(), NOTHING, "what it has stays");
}

#[test]
fn a_learner_that_will_not_get_there_is_given_up() {
    assert_eq!(Cluster::new("a b", 2, &["a* z?"]).plan(), ["retire 0 z"], "at once");
    assert_eq!(Cluster::new("a b c", 2, &["a* c?"]).draining("c").plan(), ["retire 0 c"]);
    assert_eq!(Cluster::new("a b c", 2, &["a* c?"]).suspect("c").plan(), NOTHING, "it may come back");
    assert_eq!(Cluster::new("a b c", 2, &["a* b c?"]).plan(), ["retire 0 c"], "there are enough without it");
    assert_eq!(Cluster::new("a b c", 2, &["a* b c?>b"]).plan(), NOTHING, "a move");
    assert_eq!(
        Cluster::new("a b c", 2, &["a* b c?>z"]).plan(),
        ["retire 0 c"],
        "what it was to replace is gone"
    );
}

#[test]
fn of_too_many_copies_the_worst_goes_but_never_the_primary() {
    let plan = |nodes: &str, copies: &str| Cluster::new(nodes, 2, &[copies]).plan();
    assert_eq!(plan("a b c", "a* b c"), ["retire 0 c"]);
    assert_eq!(plan("a b c", "a b c*"), ["retire 0 b"]);
    assert_eq!(plan("a b c", "a* b- c"), ["retire 0 b"], "out of sync");
    assert_eq!(plan("a b c", "a* b! c"), ["retire 0 b"], "damaged");
    assert_eq!(plan("a/1 b/1 c/2", "a* b c"), ["retire 0 b"], "in the primary's zone");
    assert_eq!(plan("a b c", "a* b c>b"), ["retire 0 b"], "replaced");
    let one = |copies: &str| Cluster::new("a b c", 1, &[copies]).draining("a").plan();
    assert_eq!(one("a b* c"), ["retire 0 a"], "drained");
    let lagging = Cluster::new("a b c", 1, &["a* b- c"]);
    assert_eq!(lagging.plan(), ["retire 0 b"], "out of sync, though either is spare");
    assert_eq!(plan("a b c d", "a* b c d"), ["retire 0 d"], "one at a time");
}

#[test]
fn a_primary_that_is_replaced_hands_over_before_it_goes() {
    let plan = |copies: &str| Cluster::new("a b c", 2, &[copies]).plan();
    assert_eq!(plan("a* b c?>a"), NOTHING);
    assert_eq!(plan("a* b c>a"), ["hand over 0 b"]);
    assert_eq!(plan("a b* c>a"), ["retire 0 a"]);
    assert_eq!(plan("a* b- c>a"), NOTHING, "too few would be left");
    assert_eq!(plan("a* b!- c>a"), ["add 0 b for b"], "what was lost meanwhile is made up for");
    assert_eq!(Cluster::new("a b", 1, &["a* b>a"]).plan(), ["hand over 0 b"]);
    assert_eq!(Cluster::new("a b", 1, &["a b*>a"]).plan(), ["retire 0 a"]);
}

#[test]
fn a_drained_node_is_emptied() {
    let plan = |copies: &str| Cluster::new("a b c", 2, &[copies]).draining("a").plan();
    assert_eq!(plan("a b*"), ["add 0 c for a"]);
    assert_eq!(plan("a* b"), ["add 0 c for a"]);
    assert_eq!(plan("a* b c?>a"), ["hand over 0 b"], "before the new copy is there");
    assert_eq!(plan("a b* c?>a"), NOTHING);
    assert_eq!(plan("a b* c>a"), ["retire 0 a"]);
    assert_eq!(plan("ax b* c"), NOTHING);
    let two = ["a* b c d?>a", "b* c d"];
    let drained = Cluster::new("a b c d", 3, &two).draining("a");
    assert_eq!(drained.plan(), ["hand over 0 c"], "b leads another shard");
    assert_eq!(plan("a* b-"), ["add 0 c for a"], "nobody else is in sync");
    assert_eq!(plan("a* c?>a"), NOTHING);
    let away = Cluster::new("a b c", 2, &["a b*"]).gone("a", 0).draining("a");
    assert_eq!(away.plan(), ["add 0 c for a"], "it does not come back to stay");
}

#[test]
fn a_drain_without_another_node_waits() {
    assert_eq!(Cluster::new("a b", 2, &["a b*"]).draining("a").plan(), NOTHING);
    assert_eq!(Cluster::new("a b", 2, &["a* b"]).draining("a").plan(), ["hand over 0 b"]);
    assert_eq!(Cluster::new("a", 1, &["a*"]).draining("a").plan(), NOTHING);
    let even = Cluster::new("a b", 2, &["b* a", "b* a"]).draining("a");
    assert_eq!(even.plan(), NOTHING, "what is to go gets nothing more to lead");
    let all = Cluster::new("a b c", 2, &["a* b"]).draining("a").draining("b").draining("c");
    assert_eq!(all.plan(), NOTHING);
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let cluster = |expires| Cluster::new("a b c", 2, &["a b*"]).drained_until("a", Some(expires));
    assert_eq!(cluster(UNIX_MS + 1).plan(), ["add 0 c for a"]);
    assert_eq!(cluster(UNIX_MS).plan(), ["end drain a"]);
}

#[test]
fn new_copies_go_where_least_is_and_zones_differ() {
    let place = |nodes: &str, shards: &[&str]| Cluster::new(nodes, 2, shards).plan().swap_remove(0);
    assert_eq!(place("a b c d", &["a*", "b* c", "b* d", "c* b"]), "add 0 d");
    assert_eq!(place("a/1 b/1 c/2", &["a*", "c* b", "c* b"]), "add 0 c", "another zone before less to do");
    assert_eq!(place("a/1 b/1 c/2 d/2", &["a*", "c* b"]), "add 0 d");
    assert_eq!(place("a/1 b/1", &["a*"]), "add 0 b", "there is no other zone");
    let three = Cluster::new("a/1 b/1 c/2 d/3", 3, &["a* c"]);
    assert_eq!(three.plan(), ["add 0 d"]);
    let open = |cluster: Cluster| cluster.plan();
    assert_eq!(open(Cluster::new("a b c", 2, &["a*"]).suspect("b")), ["add 0 c"]);
    assert_eq!(open(Cluster::new("a b c", 2, &["a*"]).draining("b")), ["add 0 c"]);
    let more = Settings { incoming_per_node: 2, outgoing_per_node: 2, ..Settings::default() };
    let moving = Cluster::new("a b c", 2, &["a*", "a* c b?>c"]).with(more);
    assert_eq!(open(moving), ["add 0 c"], "the other copy on c is about to go");
}

#[test]
fn nodes_that_hold_no_shards_get_none() {
    let mut cluster = Cluster::new("a b", 2, &["a*"]);
    let master = Node { node_type: "master".to_owned(), ..Node::clone(&cluster.view.nodes[&node("b")]) };
    cluster.view.nodes.insert(node("b"), Arc::new(master));
    assert_eq!(cluster.plan(), NOTHING);
}

#[test]
fn each_node_takes_in_and_sends_one_copy_at_a_time() {
    let taking = Cluster::new("a b c", 2, &["a*", "b*"]);
    assert_eq!(taking.plan(), ["add 0 c", "add 1 a"], "c has one to take in");
    let sending = Cluster::new("a b c d", 2, &["a*", "a*", "a* b?"]);
    assert_eq!(sending.plan(), NOTHING, "a sends one");
    let more = Settings { incoming_per_node: 2, outgoing_per_node: 2, ..Settings::default() };
    let sending = Cluster::new("a b c d", 2, &["a*", "a*", "a* b?"]).with(more);
    assert_eq!(sending.plan(), ["add 0 c"]);
    let zone = Cluster::new("a/1 b/2 c/1", 2, &["a*", "c* b?"]);
    assert_eq!(zone.plan(), NOTHING, "the other zone is worth the wait");
}

#[test]
fn what_is_missing_comes_before_what_is_leaving() {
    let cluster = Cluster::new("a b c", 2, &["a* b", "a*"]).draining("b");
    assert_eq!(cluster.plan(), ["add 1 c"]);
    let cluster = Cluster::new("a b c d", 2, &["a* b", "z* d", "c*", "a* d y?"]).draining("b");
    assert_eq!(cluster.plan(), ["elect 1", "retire 3 y", "add 2 a"]);
}

#[test]
fn a_call_names_so_many_steps_and_the_most_urgent_ones() {
    let mut shards = vec!["b* a"; 40];
    shards.extend(["z* a"; 40]);
    let cluster = Cluster::new("a b c", 2, &shards).gone("y", 60);
    let steps = cluster.plan();
    assert_eq!(steps.len(), 30);
    assert!(steps.iter().all(|step| step.starts_with("elect")), "{steps:?}");
}

#[test]
fn copies_spread_evenly_when_nothing_else_is_to_do() {
    let shards = ["a* b", "b* a", "a* b"];
    assert_eq!(Cluster::new("a b c", 2, &shards).plan(), ["add 1 c for a"]);
    assert_eq!(Cluster::new("a b", 2, &shards).plan(), NOTHING);
    assert_eq!(
        Cluster::new("a b c", 2, &["a* b", "b* a", "a* y"]).gone("y", 1).plan(),
        NOTHING,
        "y may come back"
    );
    assert_eq!(Cluster::new("a b c", 2, &shards).suspect("b").plan(), NOTHING, "b may have failed");
    assert_eq!(Cluster::new("a b c", 2, &["a* b c?>b", "b* a", "a* b"]).plan(), NOTHING, "a move goes on");
    assert_eq!(Cluster::new("a b c", 2, &shards).in_state(TableState::Creating).plan(), NOTHING);
    assert_eq!(
        Cluster::new("a b c", 1, &["a*", "a*", "b*", "c*"]).plan(),
        NOTHING,
        "one more is even enough"
    );
}

#[test]
fn the_fullest_node_gives_first() {
    let shards = ["a*", "a*", "a*", "b*", "b*"];
    assert_eq!(Cluster::new("a b c", 1, &shards).plan(), ["add 0 c for a"]);
    let shards = ["a*", "a*", "a*", "a*", "b*", "b*", "b*", "b*"];
    assert_eq!(Cluster::new("a b c d", 1, &shards).plan(), ["add 0 c for a", "add 4 d for b"]);
    let more = Settings { incoming_per_node: 9, outgoing_per_node: 9, ..Settings::default() };
    let steps = Cluster::new("a b c d", 2, &["a* b", "a* b"]).with(more).plan();
    assert_eq!(steps, ["add 0 c for a", "add 1 d for b"], "one step for each shard");
}

#[test]
fn copies_leave_a_crowded_zone() {
    assert_eq!(Cluster::new("a/1 b/1 c/2", 2, &["a* b"]).plan(), ["add 0 c for b"]);
    assert_eq!(Cluster::new("a/1 b/1 c/2", 2, &["b a*"]).plan(), ["add 0 c for b"], "not the primary");
    assert_eq!(Cluster::new("a/1 b/2 c/2", 2, &["a* b"]).plan(), NOTHING);
    let uneven = ["a* c", "a* c", "a* c", "b* c"];
    assert_eq!(Cluster::new("a/1 b/1 c/2", 2, &uneven).plan(), ["add 0 b for a"], "zones stay apart");
    assert_eq!(
        Cluster::new("a/1 b/1 c/2", 2, &["a* c", "c* a", "b* c"]).plan(),
        NOTHING,
        "however full c is"
    );
}

#[test]
fn primaries_spread_evenly_over_copies_in_sync() {
    let two = |shards: &[&str]| Cluster::new("a b", 2, shards).plan();
    assert_eq!(two(&["a* b", "a* b"]), ["hand over 0 b"]);
    assert_eq!(two(&["a* b", "b* a", "a* b"]), NOTHING);
    assert_eq!(two(&["a* b", "a* b", "a* b", "a* b"]), ["hand over 0 b", "hand over 1 b"]);
    assert_eq!(two(&["a* b-", "a* b"]), NOTHING, "a copy catches up");
    let poor = Cluster::new("a b", 3, &["a* b y", "a* b", "a* b"]).gone("y", 10);
    assert_eq!(poor.plan(), ["hand over 1 b"], "there is no room for what is lost");
}

#[test]
fn what_keeps_a_node_from_being_empty_is_told() {
    let progress = |cluster: Cluster| drain_progress(&cluster.view, &node("a"));
    let told = |cluster: Cluster| {
        let reasons = progress(cluster).blocked;
        reasons.into_iter().map(|(shard, why)| format!("{}: {why}", shard.index)).collect::<Vec<_>>()
    };
    let cluster = Cluster::new("a b c", 2, &["a* b", "b* a", "ax b* c", "b* c"]).draining("a");
    let expected = DrainProgress { replicas: 2, primaries: 1, leaving: 1, blocked: Vec::new() };
    assert_eq!(progress(cluster), expected);
    assert!(progress(Cluster::new("a b c", 2, &["ax b* c"]).draining("a")).is_done());

    let two = |copies: &str| told(Cluster::new("a b", 2, &[copies]).draining("a"));
    assert_eq!(two("a* b"), ["0: no other node may hold a copy"]);
    assert_eq!(two("a^ b"), ["0: nobody leads it, so that no new copy can be made"]);
    let three = |copies: &str| told(Cluster::new("a b c", 2, &[copies]).draining("a"));
    assert_eq!(three("a* b c?>a"), ["0: a new copy is not in sync yet"]);
    assert_eq!(three("a* b- c>a"), ["0: too few of its other copies are in sync"]);
    assert_eq!(three("a b* c>a"), NOTHING, "it leaves next");
}

#[test]
fn the_longest_log_leads() {
    let report = |name: &str, epoch, flushed| CandidateReport {
        replica: replica_id(name),
        last_epoch: Epoch(epoch),
        flushed: Lsn(flushed),
        commit: Lsn(5),
        is_damaged: false,
        tail_was_cut: false,
        is_proven: false,
        primaries: 0,
    };
    let elected =
        |copies: &str, reports: &[CandidateReport]| elect(&shard(0, copies), reports, &[]).map(name_of);
    let (a, b, c) = (report("a", 3, 9), report("b", 3, 8), report("c", 4, 7));
    assert_eq!(elected("a* b c", &[a, b, c]).as_deref(), Some("c"), "the later reign before the longer log");
    assert_eq!(elected("a* b c", &[b, a]).as_deref(), Some("a"));
    assert_eq!(elected("a* b c", &[]), None);
    assert_eq!(elected("a* b c-", &[b, c]).as_deref(), Some("b"), "not in sync");
    assert_eq!(elected("a* b c!", &[b, c]).as_deref(), Some("b"), "damaged, says the record");
    assert_eq!(elected("a* b c", &[b, CandidateReport { is_damaged: true, ..c }]).as_deref(), Some("b"));
    assert_eq!(elected("a* b", &[b, c]).as_deref(), Some("b"), "no copy of this shard");

    let equal = CandidateReport { replica: replica_id("b"), ..a };
    assert_eq!(elected("a* b", &[equal, a]).as_deref(), Some("a"), "the first of equals");
    assert_eq!(elected("a* b", &[equal, CandidateReport { primaries: 1, ..a }]).as_deref(), Some("b"));

    // A disk that forgot (R8).
    let behind = report("a", 5, 7);
    let ahead = CandidateReport { commit: Lsn(8), ..b };
    assert_eq!(elected("a* b", &[behind, ahead]).as_deref(), Some("b"));
    let lost = CandidateReport { commit: Lsn(8), is_damaged: true, ..b };
    assert_eq!(elected("a* b", &[behind, lost]), None, "even if nobody is left who has it");

    // A tail that was cut (R7).
    let cut = CandidateReport { tail_was_cut: true, ..a };
    assert_eq!(elected("a* b c", &[cut, b]).as_deref(), Some("b"), "c may have what was cut");
    assert_eq!(elected("a* b", &[cut, b]).as_deref(), Some("a"), "nobody has it");
    assert_eq!(elected("a* b", &[cut]), None);
    assert_eq!(elected("a* b-", &[cut]).as_deref(), Some("a"));

    let without_b = elect(&shard(0, "a* b!"), &[cut], &[replica_id("b")]);
    assert_eq!(without_b, Some(replica_id("a")), "nobody will hear of it");

    // Copies that were opened just now: one disk of two may have forgotten, so two are asked, or one that is proven.
    let of_two = |copies: &str, reports: &[CandidateReport], lost: &[&str]| {
        let shard = Shard { min_isr: 2, ..shard(0, copies) };
        let lost: Vec<ReplicaId> = lost.iter().map(|name| replica_id(name)).collect();
        elect(&shard, reports, &lost).map(name_of)
    };
    let proven = |report| CandidateReport { is_proven: true, ..report };
    assert_eq!(of_two("a* b c", &[a], &[]), None, "b or c may have more");
    assert_eq!(of_two("a* b c", &[a, b], &[]).as_deref(), Some("a"));
    assert_eq!(of_two("a* b c", &[proven(b)], &[]).as_deref(), Some("b"));
    assert_eq!(of_two("a* b c!", &[a, c], &[]), None, "a damaged one says nothing");
    assert_eq!(of_two("a* b c!", &[a], &["c"]).as_deref(), Some("a"), "it is the one that may be lost");
    assert_eq!(of_two("a* b c-", &[a, proven(c)], &[]), None, "nor does one that is out");
    assert_eq!(of_two("a* b- c-", &[a], &[]).as_deref(), Some("a"), "nothing was acknowledged by one alone");
}

#[test]
fn an_election_does_without_copies_that_are_lost() {
    let lost = |copies: &str| Cluster::new("a b c", 3, &[copies]);
    assert_eq!(lost("a^ b c").plan(), ["elect 0"]);
    assert_eq!(lost("a^! b c").plan(), ["elect 0 without a"]);
    assert_eq!(lost("a* b c").gone("a", 9).plan(), ["elect 0"]);
    assert_eq!(lost("a* b c").gone("a", 11).plan(), ["elect 0 without a"], "it will not come back");
}
