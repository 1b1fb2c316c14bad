"""Will the price of electricity be up on its last day? New South Wales, 1996 to 1998."""
