//! A hall drawn by hand, with what files from the field have.

use expect_test::expect;
use tmomi_engine::ids::{RowIndex, SectionIndex};
use tmomi_engine::layout::{Layout, SectionSpec};
use tmomi_persist::plan::Plan;

const HALL: &[u8] = include_bytes!("../data/hall.json");

fn hall() -> (Plan, Layout) {
    let plan = Plan::from_json(HALL).unwrap();
    let layout = Layout::build(plan.spec()).unwrap();
    (plan, layout)
}

#[test]
fn a_hall_from_the_field_is_imported_and_said_to_be() {
    let (plan, layout) = hall();
    expect![[r#"
        Report {
            sections: 5,
            rows: 8,
            seats: 747,
            tiers: [
                "R석",
                "S석",
                "Tisch",
                "스탠딩",
            ],
            ignored_fields: {
                "editor": 1,
                "glow": 1,
                "radius": 1,
                "row_label": 2,
                "row_number_position": 2,
                "section_break": 1,
                "sort": 1,
                "status": 1,
                "uuid": 1,
                "wheelchair": 1,
                "zone_id": 1,
            },
        }
    "#]]
    .assert_debug_eq(&plan.report());
    assert_eq!(layout.capacity(), 747);
}

#[test]
fn same_names_are_told_apart() {
    let (plan, _) = hall();
    let names: Vec<String> = (plan.sections())
        .map(|section| {
            let rows: Vec<_> = section.rows().map(|row| row.name().into_owned()).collect();
            format!("{}: {}", section.name(), rows.join(", "))
        })
        .collect();
    expect![[r#"
        [
            "1층: 나, 가, 다",
            "Balkon: 1",
            "Balkon (2): 1",
            "Zone 5: 1, 1 (2), Row 3",
            "플로어: ",
        ]
    "#]]
    .assert_debug_eq(&names);
}

#[test]
fn seats_have_their_ids_their_tiers_and_their_places() {
    let (plan, layout) = hall();
    let seat = plan.seat(&layout, "1층-가-3").unwrap();
    assert_eq!(layout.position(seat), (Some(RowIndex(1)), 2));
    assert_eq!(plan.row(RowIndex(1)).point(2), (180.0 + 20.0 + 2.0 * 20.25, 120.75));
    assert_eq!(&*plan.tiers()[usize::from(layout.block(seat.block()).tier.0)], "R석");
    // The seats nearest to the stage are first, though the file has their row second.
    assert_eq!(seat.block().0, 0);
    let SectionSpec::Rows(rows) = &plan.spec().sections[0] else { panic!("rows as drawn") };
    let runs: Vec<_> = rows[0].runs.iter().map(|(seats, tier)| (*seats, tier.0)).collect();
    assert_eq!(runs, [(3, 1), (6, 0), (3, 1)]);
    let place = plan.seat(&layout, "플로어-500").unwrap();
    assert_eq!(plan.seat_id(&layout, place), "플로어-500");
    assert_eq!(layout.place(SectionIndex(4), 499), Some(place));
    for id in ["플로어-501", "플로어-0", "1층-가-11", "Bar-1", "무대"] {
        assert_eq!(plan.seat(&layout, id), None, "{id}");
    }
}

/// The numbers of blocks are in the log and follow from these distances. A program that computes
/// others would call the seats of an open showtime by wrong names.
#[test]
fn distances_stay_as_they_are_for_ever() {
    let (plan, _) = hall();
    let mut distances = Vec::new();
    for section in plan.spec().sections {
        if let SectionSpec::Rows(rows) = section {
            distances.extend(rows.iter().map(|row| row.distance));
        }
    }
    expect![[r#"
        [
            171853,
            116040,
            228880,
            942763,
            1000000,
            602823,
            628670,
            664640,
        ]
    "#]]
    .assert_debug_eq(&distances);
}

#[test]
fn every_seat_is_found_by_the_id_it_has() {
    let (plan, layout) = hall();
    for section in plan.sections() {
        for row in section.rows() {
            for position in 0..row.seats() {
                let mut id = String::new();
                row.push_seat_id(position, &mut id);
                let seat = plan.seat(&layout, &id).unwrap();
                assert_eq!(layout.position(seat), (Some(row.index()), position));
                assert_eq!(plan.seat_id(&layout, seat), id);
            }
        }
    }
}
