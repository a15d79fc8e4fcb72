async def test_x(sidecar, stripe):
    stripe.grant("cus_1", "a")
    assert (await sidecar.check("cus_1", "a"))["entitled"] is True
    assert (await sidecar.check("cus_1", "b"))["entitled"] is False
    sidecar.clock.advance(400)
    d = await sidecar.check("cus_1", "a")
    assert d["stale"] and d["age"] > 400
