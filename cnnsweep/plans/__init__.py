"""What a sweep will try, take and cost, said before it trains."""
