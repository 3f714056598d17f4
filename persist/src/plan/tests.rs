//! Refusals by their place and reason, and what never may happen whatever the file says.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};
use tmomi_engine::ids::{BlockIndex, RowIndex, SeatAddr, SectionIndex, TierIndex};
use tmomi_engine::layout::{Layout, RowSpec, SectionSpec};

use super::Plan;

fn check(text: &str, expect: Expect) {
    let said = match Plan::from_json(text.as_bytes()) {
        Ok(plan) => format!("{:?}", plan.report()),
        Err(error) => format!("{} -> {}", error.pointer, error.reason),
    };
    expect.assert_eq(&said);
}

fn check_value(value: Value, expect: Expect) {
    check(&value.to_string(), expect);
}

/// A plan of one seat, its pieces to be changed.
fn one_seat() -> Value {
    json!({
        "name": "n",
        "categories": [{"name": "A"}],
        "zones": [{
            "position": {"x": 0, "y": 0},
            "rows": [{
                "row_number": "1",
                "seats": [{
                    "seat_guid": "g",
                    "seat_number": "1",
                    "position": {"x": 0, "y": 0},
                    "category": "A",
                }],
            }],
        }],
    })
}

/// The plan of one seat with the value at `pointer` replaced, or taken out for `None`.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut plan = one_seat();
    match value {
        Some(value) => {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            plan.pointer_mut(parent).unwrap()[field] = value;
        }
        None => {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            plan.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        }
    }
    plan
}

#[test]
fn a_missing_required_field_is_refused_at_its_place() {
    let seat = "/zones/0/rows/0/seats/0";
    for pointer in [
        "/name",
        "/categories",
        "/categories/0/name",
        "/zones",
        "/zones/0/position",
        "/zones/0/position/y",
        "/zones/0/rows",
        "/zones/0/rows/0/row_number",
        "/zones/0/rows/0/seats",
        &format!("{seat}/seat_guid"),
        &format!("{seat}/seat_number"),
        &format!("{seat}/position"),
        &format!("{seat}/position/x"),
        &format!("{seat}/category"),
    ] {
        let error = Plan::from_value(&with(pointer, None)).unwrap_err();
        assert_eq!((error.pointer.as_str(), error.reason.as_str()), (pointer, "is missing"));
        let error = Plan::from_value(&with(pointer, Some(json!(true)))).unwrap_err();
        assert!(error.pointer.starts_with(pointer), "{pointer}: {error}");
    }
    assert!(Plan::from_value(&one_seat()).is_ok());
}

#[test]
fn what_cannot_be_sold_is_refused_at_its_place() {
    let seat = "/zones/0/rows/0/seats/0";
    let guid = format!("{seat}/seat_guid");
    check_value(
        with(&guid, Some(json!(""))),
        expect!["/zones/0/rows/0/seats/0/seat_guid -> must have 1 to 128 bytes"],
    );
    check_value(
        with(&guid, Some(json!("가".repeat(43)))),
        expect!["/zones/0/rows/0/seats/0/seat_guid -> must have 1 to 128 bytes"],
    );
    check_value(
        with(&format!("{seat}/category"), Some(json!("B"))),
        expect![[r#"/zones/0/rows/0/seats/0/category -> no category is called "B""#]],
    );
    check_value(
        with(&format!("{seat}/position/x"), Some(json!("1"))),
        expect!["/zones/0/rows/0/seats/0/position/x -> must be a finite number"],
    );
    check_value(
        with(&format!("{seat}/position/x"), Some(json!(1e300))),
        expect!["/zones/0/rows/0/seats/0/position -> must be a finite number"],
    );
    let huge = one_seat().to_string().replacen("\"x\":0", "\"x\":1e999", 1);
    check(&huge, expect!["/zones/0/position/x -> number out of range at line 1 column 71"]);
    let mut twice = one_seat();
    let again = twice["zones"][0]["rows"][0]["seats"][0].clone();
    let zone = json!({"position": {"x": 0, "y": 0}, "rows": [
        {"row_number": "0", "seats": []}, {"row_number": "1", "seats": [again]}]});
    twice["zones"].as_array_mut().unwrap().push(zone);
    check_value(
        twice,
        expect![[r#"/zones/1/rows/1/seats/0/seat_guid -> another seat is called "g""#]],
    );
    check_value(with("/zones", Some(json!([]))), expect!["/zones -> the plan has no seat"]);
}

#[test]
fn general_admission_needs_places_and_no_seats() {
    let general = |general| with("/zones/0/general_admission", Some(general));
    check_value(
        general(json!({"capacity": 5, "category": "A"})),
        expect!["/zones/0/rows -> a general-admission zone has no seats"],
    );
    let alone = |general: Value| {
        json!({"name": "n", "categories": [{"name": "A"}], "zones": [
            {"name": "F", "position": {"x": 0, "y": 0}, "general_admission": general}]})
    };
    let at = "/zones/0/general_admission";
    for (value, pointer) in [
        (json!(5), at.to_owned()),
        (json!({"category": "A"}), format!("{at}/capacity")),
        (json!({"capacity": 0, "category": "A"}), format!("{at}/capacity")),
        (json!({"capacity": 1.5, "category": "A"}), format!("{at}/capacity")),
        (json!({"capacity": 16_777_217, "category": "A"}), format!("{at}/capacity")),
        (json!({"capacity": 5}), format!("{at}/category")),
        (json!({"capacity": 5, "category": "B"}), format!("{at}/category")),
    ] {
        assert_eq!(Plan::from_value(&alone(value)).unwrap_err().pointer, pointer);
    }
    let all = Plan::from_value(&alone(json!({"capacity": 16_777_216, "category": "A", "x": 1})));
    let report = all.unwrap().report();
    assert_eq!((report.sections, report.rows, report.seats), (1, 0, 16_777_216));
    assert_eq!(report.ignored_fields, BTreeMap::from([("x".to_owned(), 1)]));
}

#[test]
fn what_is_no_plan_at_all_is_refused() {
    check("", expect![" -> EOF while parsing a value at line 1 column 0"]);
    check("[]", expect![" -> must be an object"]);
    check(
        r#"{"zones":[{"rows":[],"position":{"x":1,"y":2}},{"a~/b":[1,}]}"#,
        expect!["/zones/1/a~0~1b/1 -> expected value at line 1 column 59"],
    );
    let deep = format!("{{\"a\":{}", "[".repeat(1_000));
    let deep = Plan::from_json(deep.as_bytes()).unwrap_err();
    assert!(deep.pointer.starts_with("/a/0/0/0/"), "{deep}");
    assert!(deep.reason.starts_with("recursion limit exceeded"), "{deep}");
}

#[test]
fn fields_may_come_in_any_order() {
    let text = r#"{"zones":[{"rows":[{"seats":[
        {"category":"","seat_guid":"a","seat_number":"1","position":{"y":0.25,"x":1}},
        {"category":"default","seat_guid":"b","seat_number":"2","position":{"y":0,"x":2}},
        {"category":"A","seat_guid":"c","seat_number":"3","position":{"y":0,"x":-13.5}}
        ],"position":{"x":10,"y":10},"row_number":7}],"name":"Z","position":{"x":3.5,"y":100}}],
        "name":"n","categories":[{"name":"A"},{"name":"default"}]}"#;
    let plan = Plan::from_json(text.as_bytes()).unwrap();
    assert_eq!(plan.report().tiers, ["A", "default"]);
    let row = plan.row(RowIndex(0));
    assert_eq!(row.name(), "7");
    assert_eq!([row.point(0), row.point(2)], [(14.5, 110.25), (0.0, 110.0)]);
    // An empty category and the one called `default` are one tier, so one run.
    let runs = vec![(2, TierIndex(1)), (1, TierIndex(0))];
    let rows = vec![RowSpec { runs, distance: 1_000_000 }];
    assert_eq!(plan.spec().sections, [SectionSpec::Rows(rows)]);
    every_seat_has_its_name(&plan);
    for twice in [r#"{"zones":[],"zones":[]}"#, r#"{"zones":[],"generate":{"sections":[]}}"#] {
        assert_eq!(Plan::from_json(twice.as_bytes()).unwrap_err().pointer, "/zones");
    }
}

#[test]
fn an_empty_category_is_the_default_tier() {
    let mut plan = with("/zones/0/rows/0/seats/0/category", Some(json!("")));
    plan["categories"] = json!([]);
    check_value(
        plan,
        expect![[
            r#"Report { sections: 1, rows: 1, seats: 1, tiers: ["default"], ignored_fields: {} }"#
        ]],
    );
}

/// Planted bug: a blank makes a tier of its own.
#[test]
fn blanks_around_a_name_make_no_other_tier() {
    let mut plan = with("/zones/0/rows/0/seats/0/category", Some(json!("VIP ")));
    plan["categories"] = json!([{ "name": " VIP" }, { "name": "VIP" }]);
    check_value(
        plan,
        expect![[
            r#"Report { sections: 1, rows: 1, seats: 1, tiers: ["VIP"], ignored_fields: {} }"#
        ]],
    );
    let section = |name, tier| json!({ "name": name, "tier": tier, "places": 1 });
    let sections =
        [section("A", "R"), section("B", "R "), section("C", "\u{3000}"), section("D", "")];
    let plan = Plan::from_value(&json!({ "generate": { "sections": sections } })).unwrap();
    assert_eq!(plan.report().tiers, ["R", "default"]);
}

#[test]
fn a_place_never_has_the_name_of_a_seat() {
    let mut plan = with("/zones/0/rows/0/seats/0/seat_guid", Some(json!("Floor-7")));
    let floor = json!({"name": "Floor", "position": {"x": 0, "y": 0},
        "general_admission": {"capacity": 9, "category": "A"}});
    plan["zones"].as_array_mut().unwrap().push(floor);
    let plan = Plan::from_value(&plan).unwrap();
    let names: Vec<_> = plan.sections().map(|section| section.name().to_owned()).collect();
    assert_eq!(names, ["Zone 1", "Floor (2)"]);
    every_seat_has_its_name(&plan);
}

fn every_seat_has_its_name(plan: &Plan) -> Layout {
    let layout = Layout::build(plan.spec()).unwrap();
    let mut ids = std::collections::HashSet::new();
    for (index, block) in layout.blocks().iter().enumerate() {
        for bit in 0..u32::from(block.len) {
            let block = BlockIndex(index as u32);
            let seat = SeatAddr::new(block, bit);
            let id = plan.seat_id(&layout, seat);
            assert_eq!(plan.seat(&layout, &id), Some(seat), "{id}");
            assert!(ids.insert(id), "two seats have one name");
        }
    }
    assert_eq!(ids.len() as u32, layout.capacity());
    assert_eq!(plan.report().seats, layout.capacity());
    assert_eq!(plan.report().rows as usize, layout.rows().len());
    layout
}

#[test]
fn generated_seats_are_computed_and_dashes_do_not_confuse() {
    let plan = Plan::from_value(&json!({"generate": {"sections": [
        {"name": "A", "tier": "R", "rows": 3, "seats_per_row": 70},
        {"name": "A-1", "tier": "S", "rows": 2, "seats_per_row": 2},
        {"name": "A-1-2", "tier": "", "rows": 2, "seats_per_row": 2},
        {"name": "A-4", "tier": "S", "places": 70},
        {"name": "가-", "tier": "S", "places": 1},
    ]}}))
    .unwrap();
    assert_eq!(plan.report().tiers, ["R", "S", "default"]);
    let layout = every_seat_has_its_name(&plan);
    for id in ["A-0-1", "A-4-71", "A-3-71", "A-01-1", "A-1-2-3-1", "A", "", "-", "A-1", "A-+1-1"] {
        assert_eq!(plan.seat(&layout, id), None, "{id}");
    }
    let row = plan.section(SectionIndex(1)).rows().next().unwrap();
    assert_eq!((row.name().as_ref(), row.seats()), ("1", 2));
    assert_eq!(row.point(0), (680.0, 60.0));
    assert_eq!(row.point(1), (700.0, 60.0));
}

#[test]
fn a_generate_request_is_read_strictly() {
    let generate = |sections: Value| json!({"generate": {"sections": sections}});
    let a = json!({"name": "A", "tier": "R", "rows": 5, "seats_per_row": 9});
    check_value(
        generate(json!([])),
        expect!["/generate/sections -> must have 1 to 65535 sections"],
    );
    check_value(
        json!({"generate": {"sections": [a]}, "name": "x"}),
        expect!["/name -> unknown field"],
    );
    check_value(
        generate(json!([{"name": "A", "tier": "R", "rows": 5, "seats_per_row": 9, "x": 1}])),
        expect!["/generate/sections/0/x -> unknown field"],
    );
    check_value(
        generate(json!([a, a])),
        expect!["/generate/sections/1/name -> another section has this name"],
    );
    check_value(
        generate(json!([a, {"name": "A-5", "tier": "R", "places": 1}])),
        expect!["/generate/sections/1/name -> its places would be called as the seats of A"],
    );
    check_value(
        generate(json!([{"name": "A", "tier": "R", "places": 1, "rows": 1}])),
        expect!["/generate/sections/0/rows -> a section with places has no rows"],
    );
    check_value(
        generate(json!([{"name": "A", "tier": "R", "rows": 0, "seats_per_row": 1}])),
        expect!["/generate/sections/0/rows -> must be a whole number from 1 to 16777216"],
    );
    check_value(
        generate(json!([{"name": "A", "tier": "R", "rows": 1, "seats_per_row": 65536}])),
        expect!["/generate/sections/0/seats_per_row -> must be a whole number from 1 to 65535"],
    );
    check_value(
        generate(json!([a, {"name": "B", "tier": "R", "rows": 16777216, "seats_per_row": 1}])),
        expect!["/generate/sections/1 -> the plan has more than 16777216 seats"],
    );
    check_value(
        generate(json!([{"name": "", "tier": "R", "places": 1}])),
        expect!["/generate/sections/0/name -> must not be empty"],
    );
    check_value(
        generate(json!([{"name": "A".repeat(129), "tier": "R", "places": 1}])),
        expect!["/generate/sections/0/name -> must not be longer than 128 bytes"],
    );
}

#[test]
fn ten_million_generated_seats_are_a_few_records() {
    let plan = Plan::from_value(&json!({"generate": {"sections": [
        {"name": "A", "tier": "R", "rows": 100_000, "seats_per_row": 100},
        {"name": "B", "tier": "R", "rows": 67_772, "seats_per_row": 100},
        {"name": "F", "tier": "R", "places": 16},
    ]}}))
    .unwrap();
    assert_eq!(plan.report().seats, 16_777_216);
    let layout = Layout::build(plan.spec()).unwrap();
    let last = plan.seat(&layout, "B-67772-100").unwrap();
    assert_eq!(plan.seat_id(&layout, last), "B-67772-100");
}

#[test]
fn the_names_of_ignored_fields_are_bounded() {
    let mut plan = one_seat();
    for n in 0..1_500 {
        plan[format!("x{n}")] = json!(null);
    }
    let ignored = Plan::from_value(&plan).unwrap().report().ignored_fields;
    assert_eq!((ignored.len(), ignored["…"]), (1_001, 500));
}

/// Two rows, the first one above, and somewhere a stage: which row is the best?
fn best_row(decoration: Value) -> u32 {
    let row = |guid: &str, y: i32| {
        json!({"row_number": guid, "position": {"x": 0, "y": y}, "seats": [
            {"seat_guid": guid, "seat_number": "1", "position": {"x": 0, "y": 0}, "category": ""}]})
    };
    let seats =
        json!({"position": {"x": 100, "y": 100}, "rows": [row("above", 0), row("below", 50)]});
    let plan = json!({"name": "n", "categories": [], "zones": [seats, decoration]});
    let plan = Plan::from_value(&plan).unwrap();
    let layout = Layout::build(plan.spec()).unwrap();
    layout.block(BlockIndex(0)).row().unwrap().0
}

#[test]
fn the_best_row_is_nearest_to_the_stage_and_without_one_to_the_top() {
    let at = |y| json!({"x": 0, "y": y});
    let area = |area: Value| json!({"position": at(80), "areas": [area]});
    assert_eq!(best_row(json!({"position": at(0), "rows": []})), 0);
    assert_eq!(best_row(area(json!({"text": "Bar", "position": at(500)}))), 0);
    // Positions add up, and a shape's middle counts: 80 + 20 is above, 80 + 220 below.
    let text = |text: &str| json!({"text": text, "size": 9});
    let rectangle = |height: i32| {
        json!({"text": text("무대"), "position": at(20), "shape": "rectangle",
            "rectangle": {"width": 10, "height": height}})
    };
    assert_eq!(best_row(area(rectangle(0))), 0);
    assert_eq!(best_row(area(rectangle(400))), 1);
    assert_eq!(best_row(area(json!({"text": "BÜHNE", "position": at(20), "height": 400}))), 1);
    let circle = json!({"text": text("Main Stage"), "position": at(220), "shape": "circle"});
    assert_eq!(best_row(area(circle)), 1);
    let points = json!({"points": [at(0), at(500)]});
    let polygon = json!({"text": text("stage"), "shape": "polygon", "polygon": points});
    assert_eq!(best_row(area(polygon)), 1);
    assert_eq!(best_row(json!({"name": "무대", "position": at(500), "rows": []})), 1);
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("A"), Just(""), Just("F-1"), Just("무대")].prop_map(Value::from),
    ];
    let fields = prop_oneof![
        Just("generate"),
        Just("sections"),
        Just("name"),
        Just("tier"),
        Just("rows"),
        Just("places"),
        Just("seats_per_row"),
        Just("zones"),
        Just("seats"),
        Just("position"),
        Just("x"),
        Just("general_admission"),
        Just("areas"),
        Just("shape"),
        Just("text"),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((fields.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

/// Where something can be changed in the plan of one seat.
const PLACES: [&str; 14] = [
    "/name",
    "/categories",
    "/categories/0",
    "/categories/0/name",
    "/zones",
    "/zones/0",
    "/zones/0/position",
    "/zones/0/rows",
    "/zones/0/rows/0/seats",
    "/zones/0/areas",
    "/zones/0/rows/0/seats/0",
    "/zones/0/rows/0/seats/0/seat_guid",
    "/zones/0/rows/0/seats/0/position/x",
    "/zones/0/general_admission",
];

proptest! {
    #[test]
    fn no_json_makes_the_import_panic(
        place in prop::sample::select(&PLACES[..]),
        value in arbitrary_json(),
    ) {
        let _ = Plan::from_value(&value);
        let mut plan = one_seat();
        let (parent, field) = place.rsplit_once('/').unwrap();
        match plan.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[0] = value,
            object => object[field] = value,
        }
        // What is read can be opened, and names every seat.
        if let Ok(plan) = Plan::from_value(&plan)
            && plan.report().seats < 10_000
        {
            every_seat_has_its_name(&plan);
        }
    }

    #[test]
    fn no_text_makes_the_import_panic(text in "[\\[\\]{}:,\"a-z0-9 .-]{0,80}") {
        let _ = Plan::from_json(text.as_bytes());
    }

    #[test]
    fn no_id_makes_the_lookup_panic(id in ".{0,20}|F-[0-9]{0,12}|A(-[0-9]{0,12}){0,3}") {
        let plan = Plan::from_value(&json!({"generate": {"sections": [
            {"name": "A", "tier": "R", "rows": 3, "seats_per_row": 7},
            {"name": "F", "tier": "S", "places": 70},
        ]}})).unwrap();
        let layout = Layout::build(plan.spec()).unwrap();
        if let Some(seat) = plan.seat(&layout, &id) {
            prop_assert_eq!(plan.seat_id(&layout, seat), id);
        }
    }
}
