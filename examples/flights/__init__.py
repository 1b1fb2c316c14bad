"""Will this flight be late? New York's departures of 2013, with labels that come when planes land."""
