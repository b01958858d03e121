//! Copies and primaries that change places because somebody asks: no fault, but what happens beside writes all the same.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Effect, pick};
use crate::rest::CallError;
use crate::shards::shards;
use crate::torture::TABLES;
use crate::torture::lab::{Lab, MASTERS, SLAVES};
use crate::wait::until;

/// Between two requests, so that some of the moves come to their end.
const PACE: Duration = Duration::from_millis(300);
const EMPTIED: Duration = Duration::from_secs(60);

/// Moves copies and hands over shards at random.
pub(super) async fn moves(lab: &Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let gateway = *pick(random, &MASTERS);
    let client = lab.client(gateway)?;
    let end = Instant::now() + Duration::from_secs(random.random_range(4..12));
    let (mut moved, mut handed_over, mut refused) = (0, 0, String::new());
    while Instant::now() < end {
        tokio::time::sleep(PACE).await;
        let table = pick(random, &TABLES).name;
        let shards = shards(&client, table).await?;
        let shard = pick(random, &shards);
        let holders: Vec<&str> = shard.replicas.iter().map(|copy| copy.node_id.as_str()).collect();
        let others: Vec<&str> = SLAVES.into_iter().filter(|slave| !holders.contains(slave)).collect();
        let path = format!("/api/v1/tables/{table}/shards/{}", shard.shard);
        let (count, answer) = if random.random_range(0..2) == 0 || others.is_empty() {
            (&mut handed_over, client.post::<Value>(&format!("{path}:handover"), &json!({})).await)
        } else {
            let body = json!({"from": pick(random, &holders), "to": pick(random, &others)});
            (&mut moved, client.post::<Value>(&format!("{path}:move"), &body).await)
        };
        match answer {
            Ok(_) => *count += 1,
            Err(CallError::Problem(problem)) if problem.code == "internal" => bail!("{problem:?}"),
            // Such as: it moves already.
            Err(error) => refused = error.to_string(),
        }
    }
    let what = format!("{moved} copies moved, {handed_over} shards handed over");
    Ok(match moved > 0 && handed_over > 0 {
        true => Effect::Confirmed(what),
        false => Effect::Unconfirmed(format!("{what}; refused: {refused}")),
    })
}

/// Empties a slave, and lets it be used again.
pub(super) async fn drain(lab: &Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    let gateway = *pick(random, &MASTERS);
    let client = lab.client(gateway)?;
    let path = format!("/api/v1/cluster/nodes/{victim}/drain");
    client.post::<Value>(&path, &json!({})).await?;
    let begun = Instant::now();
    until(&format!("{victim} is empty"), EMPTIED, async || {
        let status: Value = client.get(&path).await?;
        ensure!(status["done"] == true, "{status}");
        Ok(())
    })
    .await?;
    let took = begun.elapsed();
    client.call::<Value>(Method::DELETE, &path, None).await?;
    Ok(Effect::Confirmed(format!("{victim} was empty after {took:.1?}")))
}
