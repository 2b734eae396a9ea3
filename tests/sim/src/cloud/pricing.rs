//! Prices of products and of tickets.

use schemars::JsonSchema;
use serde::Serialize;

use super::catalogue::{Catalogue, Product};

/// An amount, in the currency of the provider and in that of the customer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Money {
    pub(crate) currency: String,
    pub(crate) value: f64,
    pub(crate) localized_value: f64,
    pub(crate) localized_currency: String,
}

/// The amount of a discount; an empty object without one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum DiscountPrice {
    Amount(Money),
    Nothing {},
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Discount {
    pub(crate) r#type: Option<String>,
    pub(crate) percentage: Option<f64>,
    pub(crate) price: DiscountPrice,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Totals {
    pub(crate) gross_price: Money,
    pub(crate) net_price: Money,
    pub(crate) total_discount: Discount,
}

/// The price of a product or of a cart.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Price {
    pub(crate) gross: f64,
    pub(crate) net: f64,
    pub(crate) fee: f64,
}

fn cents(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Price {
    /// The price of a product, without a voucher.
    pub(crate) fn of(product: &Product) -> Self {
        let net = cents(product.price * (1.0 - product.discount_percent / 100.0));
        Self { gross: product.price, net, fee: product.original_equipment_service_fee.unwrap_or_default() }
    }

    /// The sum of the prices of several products.
    pub(crate) fn sum<'a>(products: impl Iterator<Item = &'a Product>) -> Self {
        products.map(Self::of).fold(Self::default(), |sum, price| Self {
            gross: cents(sum.gross + price.gross),
            net: cents(sum.net + price.net),
            fee: cents(sum.fee + price.fee),
        })
    }

    /// The price after a further discount on the net price.
    pub(crate) fn reduced(self, percent: f64) -> Self {
        Self { net: cents(self.net * (1.0 - percent / 100.0)), ..self }
    }

    /// The price with the fee of the original equipment service.
    pub(crate) fn with_fee(self) -> Self {
        Self { gross: cents(self.gross + self.fee), net: cents(self.net + self.fee), fee: 0.0 }
    }

    /// The fee alone.
    pub(crate) fn fee_alone(self) -> Self {
        Self { gross: self.fee, net: self.fee, fee: 0.0 }
    }
}

impl Catalogue {
    /// An amount in both currencies.
    pub(crate) fn money(&self, value: f64) -> Money {
        let currency = &self.currency;
        Money {
            currency: currency.code.clone(),
            value,
            localized_value: cents(value * currency.rate),
            localized_currency: currency.localized_code.clone(),
        }
    }

    /// The discount from `gross` to `net`; zero percent, if there is none.
    pub(crate) fn discount(&self, gross: f64, net: f64) -> Discount {
        let amount = cents(gross - net);
        let percentage = if gross > 0.0 { cents(amount / gross * 100.0) } else { 0.0 };
        Discount {
            r#type: Some("percentual".to_owned()),
            percentage: Some(percentage),
            price: DiscountPrice::Amount(self.money(amount)),
        }
    }

    /// The discount of a line of a historical ticket; of nothing, if there is none, as one example has it.
    pub(crate) fn line_discount(&self, gross: f64, net: f64) -> Discount {
        if net < gross {
            return self.discount(gross, net);
        }
        Discount { r#type: None, percentage: None, price: DiscountPrice::Nothing {} }
    }

    /// A price with its discount.
    pub(crate) fn totals(&self, price: Price) -> Totals {
        Totals {
            gross_price: self.money(price.gross),
            net_price: self.money(price.net),
            total_discount: self.discount(price.gross, price.net),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_add_up_with_discounts_fees_and_another_currency() {
        let mut catalogue = Catalogue::builtin();
        catalogue.currency.rate = 1.1;
        let products = [catalogue.product(2).unwrap(), catalogue.product(3).unwrap()];
        let sum = Price::sum(products.into_iter());
        assert_eq!(sum, Price { gross: 165.0, net: 162.5, fee: 12.5 });
        let reduced = sum.reduced(25.0);
        assert_eq!((reduced.net, reduced.with_fee().net), (121.88, 134.38));
        assert_eq!(catalogue.money(100.0).localized_value, 110.0);
        assert_eq!(catalogue.discount(100.0, 70.0).percentage, Some(30.0));
        let nothing = catalogue.discount(100.0, 100.0);
        assert_eq!(
            (nothing.percentage, nothing.price),
            (Some(0.0), DiscountPrice::Amount(catalogue.money(0.0)))
        );
        assert_eq!(catalogue.discount(0.0, 0.0).percentage, Some(0.0));
        assert_eq!(catalogue.line_discount(100.0, 100.0).price, DiscountPrice::Nothing {});
    }
}
