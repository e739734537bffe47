//! `scumble methods`, `scumble attacks`, `scumble guards` and `scumble metrics`: what there is to
//! choose from.

use scumble_attack::attacks::{self, Attack};
use scumble_diffusion::guards::{self, Known};
use scumble_erase::{
    catalogue,
    methods::{self, Method},
};
use scumble_eval::metrics::{self, Metric};
use serde_json::{Value, json};

use crate::{
    args::{CatalogueArgs, ListArgs},
    failure::{Failure, Outcome},
    output, settings,
};

/// Lists the methods as a table, or as an array of objects; of one method all options too.
pub(crate) fn methods(args: &CatalogueArgs) -> Result<Outcome, Failure> {
    let pipeline = settings::miniature()?;
    let about = |m: &Method| -> Result<Value, Failure> {
        Ok(json!({
            "id": m.id, "paper": m.paper, "moves": m.moves, "needs": m.needs, "several": m.several,
            "families": m.families(), "seconds": m.seconds, "peak_mb": m.peak_mb,
            "published_evaluations": m.published_evaluations, "fixed": m.fixed, "variants": catalogue::variants(m, &pipeline)?,
        }))
    };
    let text = |m: &Method, about: &Value| {
        let mut lines = format!(
            "{}\n    {}\n    moves    {}\n    needs    {}",
            m.id, m.paper, m.moves, m.needs
        );
        lines += &format!(
            "\n    several  {}",
            if m.several {
                "takes several concepts at once"
            } else {
                "one concept at a time"
            }
        );
        lines += &format!("\n    families {}", m.families().join(", "));
        lines += &format!("\n    fixed    on a model that is not small: {}", m.fixed);
        if let Some(same) = settings::same(&about["variants"]) {
            lines += &format!("\n    variants {same}");
        }
        if let (Some(seconds), Some(peak)) = (m.seconds, m.peak_mb) {
            lines += &format!(
                "\n    cost     {seconds:.1} s, {peak:.0} MiB for `church` on the miniature, on the CPU"
            );
        }
        lines
    };
    if let Some(id) = &args.id {
        let one = methods::ALL.iter().find(|m| m.id == plain(id));
        // A guard counts as a method, and has its numbers listed under its own command.
        let Some(m) = one else {
            methods::named(id)?;
            return guards(args);
        };
        let about = about(m)?;
        return settings::print(
            args.print.json,
            &text(m, &about),
            about,
            &settings::of_method(m, &pipeline)?,
        );
    }
    if args.print.json {
        output::json(
            &methods::ALL
                .iter()
                .map(about)
                .collect::<Result<Vec<_>, _>>()?
                .into(),
        )?;
        return Ok(Outcome::Done);
    }
    for m in methods::ALL {
        output::data(&text(m, &about(m)?))?;
    }
    Ok(Outcome::Done)
}

/// A name as the lists write it.
fn plain(id: &str) -> String {
    id.trim().to_lowercase().replace('_', "-")
}

/// Lists the attacks as a table, or as an array of objects; of one attack all options too.
pub(crate) fn attacks(args: &CatalogueArgs) -> Result<Outcome, Failure> {
    let about = |a: &Attack| json!({ "id": a.id, "paper": a.paper, "access": a.access, "finds": a.finds, "step": a.step, "cases": a.cases });
    let text = |a: &Attack| {
        format!(
            "{}\n    {}\n    access   {}\n    finds    {}\n    step     {}",
            a.id, a.paper, a.access, a.finds, a.step
        )
    };
    if let Some(id) = &args.id {
        let a = attacks::named(id)?;
        return settings::print(
            args.print.json,
            &text(a),
            about(a),
            &settings::of_attack(a, &settings::miniature()?)?,
        );
    }
    if args.print.json {
        output::json(&attacks::ALL.iter().map(about).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    attacks::ALL
        .iter()
        .try_for_each(|a| output::data(&text(a)))?;
    Ok(Outcome::Done)
}

/// Lists the guards as a table, or as an array of objects; of one guard all numbers too.
pub(crate) fn guards(args: &CatalogueArgs) -> Result<Outcome, Failure> {
    let about = |g: &Known| json!({"id": g.id, "paper": g.paper, "changes": g.changes, "cost": g.cost, "needs_adapters": g.presets.is_none()});
    let text = |g: &Known| {
        format!(
            "{}\n    {}\n    changes  {}\n    cost     {} (evaluations of the U-Net a step)",
            g.id, g.paper, g.changes, g.cost
        )
    };
    if let Some(id) = &args.id {
        let g = guards::named(id)?;
        return settings::print(args.print.json, &text(g), about(g), &settings::of_guard(g));
    }
    if args.print.json {
        output::json(&guards::ALL.iter().map(about).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    guards::ALL
        .iter()
        .try_for_each(|g| output::data(&text(g)))?;
    Ok(Outcome::Done)
}

/// Lists the metrics as a table, or as an array of objects.
pub(crate) fn metrics(args: ListArgs) -> Result<Outcome, Failure> {
    if args.print.json {
        let one = |m: &Metric| {
            json!({
                "id": m.id, "name": m.name, "meaning": m.meaning, "unit": m.unit, "better": m.better, "axis": m.axis,
                "convention": m.convention(None), "source": m.source,
            })
        };
        output::json(&metrics::ALL.iter().map(one).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    for m in metrics::ALL {
        output::data(&format!(
            "{}\n    {}\n    {}, {}; {}",
            m.id,
            m.meaning,
            m.unit,
            m.direction(),
            m.axis
        ))?;
        output::data(&format!(
            "    counted  {}\n    follows  {}",
            m.convention(None),
            m.source
        ))?;
    }
    Ok(Outcome::Done)
}
