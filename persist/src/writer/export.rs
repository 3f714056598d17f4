//! Orders and tickets out of the rows, one after the other: as many as there are, in the memory of
//! a few.

use std::io;
use std::sync::Arc;

use sqlx::any::{Any, AnyRow};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Row as _};
use tmomi_engine::ids::{BuyerId, HoldId, HoldSlot, Seq, ShowtimeId, TimeMs};

use super::moment::begin;
use super::tables::read_time;
use crate::database::{Dialect, OpenError, Place};

/// Orders that are read at a time; an order may have hundreds of tickets.
const PAGE_ORDERS: usize = 64;

/// An order, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedOrder {
    /// The hold that it was; the order has its id.
    pub id: HoldId,
    /// The showtime of its seats.
    pub showtime: ShowtimeId,
    /// Whose it is.
    pub buyer: BuyerId,
    /// `confirmed` or `refunded`.
    pub state: String,
    /// How many tickets it has or had.
    pub tickets: u64,
    /// The sum of their prices, in the currency's minor unit.
    pub total: u64,
    /// What prices are in.
    pub currency: String,
    /// The client's payment reference, if it gave one.
    pub payment_ref: Option<String>,
    /// When it was made.
    pub confirmed_at: Option<TimeMs>,
    /// When it was given back, if it was.
    pub refunded_at: Option<TimeMs>,
}

/// A ticket, as its row and that of its order have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedTicket {
    /// Its order.
    pub order: HoldId,
    /// Its place among the tickets of the order, from 0.
    pub place: usize,
    /// The showtime.
    pub showtime: ShowtimeId,
    /// Whose it is.
    pub buyer: BuyerId,
    /// The plan's name of the seat.
    pub seat: String,
    /// The name of its tier.
    pub tier: String,
    /// The price, in the currency's minor unit.
    pub price: u64,
    /// What prices are in.
    pub currency: String,
    /// `valid` or `refunded`.
    pub state: String,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// It cannot be read, or has what no version of this program writes.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// What takes the lines does not.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Gives every order, or those of a showtime, to `each`: shard by shard, showtime by showtime, in
/// the order in which their holds were made, and all as they were at one moment.
///
/// # Errors
///
/// [`ExportError`]; the first error of `each` ends it.
pub async fn orders(
    place: &Place,
    showtime: Option<ShowtimeId>,
    each: &mut dyn FnMut(ExportedOrder) -> io::Result<()>,
) -> Result<(), ExportError> {
    read(place, showtime, &mut Out::Orders(each)).await
}

/// Gives every ticket, or those of a showtime, to `each`, order by order as [`orders`] does.
///
/// # Errors
///
/// [`ExportError`]; the first error of `each` ends it.
pub async fn tickets(
    place: &Place,
    showtime: Option<ShowtimeId>,
    each: &mut dyn FnMut(ExportedTicket) -> io::Result<()>,
) -> Result<(), ExportError> {
    read(place, showtime, &mut Out::Tickets(each)).await
}

/// What is asked for, and who takes it.
enum Out<'a> {
    Orders(&'a mut dyn FnMut(ExportedOrder) -> io::Result<()>),
    Tickets(&'a mut dyn FnMut(ExportedTicket) -> io::Result<()>),
}

async fn read(
    place: &Place,
    showtime: Option<ShowtimeId>,
    out: &mut Out<'_>,
) -> Result<(), ExportError> {
    let pool = place.readers(1).await?;
    let done = read_from(&pool, place.dialect(), showtime, out).await;
    // However it ended: the server has its locks back before anybody goes on.
    pool.close().await;
    done
}

async fn read_from(
    pool: &AnyPool,
    dialect: Dialect,
    showtime: Option<ShowtimeId>,
    out: &mut Out<'_>,
) -> Result<(), ExportError> {
    let mut conn = pool.acquire().await?;
    let mut tx = begin(&mut conn, dialect, false).await?;
    let asked = "SELECT shard FROM shard_position ORDER BY shard";
    let shards: Vec<i64> = sqlx::query_scalar(asked).fetch_all(&mut *tx).await?;
    let pages = Pages::new(dialect);
    for shard in shards {
        if let Some(showtime) = showtime {
            pages.read(&mut tx, i64::from(showtime.0), shard, out).await?;
            continue;
        }
        let mut last = i64::MIN;
        while let Some(showtime) = next_sold(&mut tx, last, shard).await? {
            pages.read(&mut tx, showtime, shard, out).await?;
            last = showtime;
        }
    }
    Ok(())
}

/// The first showtime behind `last` that a shard has sold anything of.
async fn next_sold(
    conn: &mut AnyConnection,
    last: i64,
    shard: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let asked = "SELECT showtime_id FROM ticket_order WHERE showtime_id > ? AND shard = ?
        ORDER BY showtime_id LIMIT 1";
    sqlx::query_scalar(asked).bind(last).bind(shard).fetch_optional(conn).await
}

/// The orders of a showtime, page by page, and with each the tickets of its orders. A join would
/// leave it to the database in which order it reads. The texts are the same for all pages: the
/// connection prepares them once.
struct Pages {
    orders: Arc<str>,
    tickets: Arc<str>,
}

impl Pages {
    fn new(dialect: Dialect) -> Pages {
        let text = match dialect {
            Dialect::Sqlite => "TEXT",
            Dialect::MySql => "CHAR",
        };
        let orders = format!(
            "SELECT hold_seq, slot, showtime_id, user_id, state,
                    (SELECT COUNT(*) FROM ticket
                     WHERE ticket.showtime_id = ticket_order.showtime_id
                       AND ticket.shard = ticket_order.shard
                       AND ticket.hold_seq = ticket_order.hold_seq),
                    total, currency, payment_ref, CAST(confirmed_at AS {text}),
                    CAST(refunded_at AS {text})
             FROM ticket_order WHERE showtime_id = ? AND shard = ? AND hold_seq > ?
             ORDER BY hold_seq LIMIT {PAGE_ORDERS}"
        );
        let tickets = "SELECT hold_seq, seat, tier, price, state FROM ticket
             WHERE showtime_id = ? AND shard = ? AND hold_seq BETWEEN ? AND ?
             ORDER BY hold_seq, seat_addr";
        Pages { orders: orders.into(), tickets: tickets.into() }
    }

    async fn read(
        &self,
        conn: &mut AnyConnection,
        showtime: i64,
        shard: i64,
        out: &mut Out<'_>,
    ) -> Result<(), ExportError> {
        let mut after = i64::MIN;
        loop {
            let orders = ask(conn, &self.orders, &[showtime, shard, after]).await?;
            let orders: Vec<_> = orders.iter().map(order).collect::<Result<_, _>>()?;
            let (Some(first), Some(last)) = (orders.first(), orders.last()) else { return Ok(()) };
            after = last.id.seq.0 as i64;
            match out {
                Out::Orders(each) => orders.into_iter().try_for_each(each)?,
                Out::Tickets(each) => {
                    let range = [showtime, shard, first.id.seq.0 as i64, after];
                    let rows = ask(conn, &self.tickets, &range).await?;
                    give_tickets(&orders, &rows, each)?;
                }
            }
        }
    }
}

async fn ask(
    conn: &mut AnyConnection,
    sql: &Arc<str>,
    values: &[i64],
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let query = sqlx::query::<Any>(AssertSqlSafe(Arc::clone(sql)));
    values.iter().fold(query, |query, value| query.bind(*value)).fetch_all(conn).await
}

/// Gives the tickets of some orders; both are in the order of the orders.
fn give_tickets(
    orders: &[ExportedOrder],
    rows: &[AnyRow],
    each: &mut dyn FnMut(ExportedTicket) -> io::Result<()>,
) -> Result<(), ExportError> {
    let mut rows = rows.iter().peekable();
    for order in orders {
        let mut place = 0;
        while let Some(row) = rows.peek() {
            let of = number(row, 0)?;
            if of > order.id.seq.0 {
                break;
            }
            // A ticket without an order is no ticket; a reconciliation tells of it.
            if of == order.id.seq.0 {
                each(ticket(row, order, place)?)?;
                place += 1;
            }
            rows.next();
        }
    }
    Ok(())
}

fn order(row: &AnyRow) -> Result<ExportedOrder, sqlx::Error> {
    let time = |column: usize| -> Result<Option<TimeMs>, sqlx::Error> {
        let text: Option<String> = row.try_get(column)?;
        let read = |text: String| {
            read_time(&text).ok_or_else(|| sqlx::Error::Decode(format!("{text} is no time").into()))
        };
        text.map(read).transpose()
    };
    Ok(ExportedOrder {
        id: HoldId { slot: HoldSlot(number(row, 1)? as u32), seq: Seq(number(row, 0)?) },
        showtime: ShowtimeId(number(row, 2)? as u32),
        buyer: BuyerId(number(row, 3)?),
        state: row.try_get(4)?,
        tickets: number(row, 5)?,
        total: number(row, 6)?,
        currency: row.try_get(7)?,
        payment_ref: row.try_get(8)?,
        confirmed_at: time(9)?,
        refunded_at: time(10)?,
    })
}

fn ticket(
    row: &AnyRow,
    order: &ExportedOrder,
    place: usize,
) -> Result<ExportedTicket, sqlx::Error> {
    Ok(ExportedTicket {
        order: order.id,
        place,
        showtime: order.showtime,
        buyer: order.buyer,
        seat: row.try_get(1)?,
        tier: row.try_get(2)?,
        price: number(row, 3)?,
        currency: order.currency.clone(),
        state: row.try_get(4)?,
    })
}

fn number(row: &AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}
