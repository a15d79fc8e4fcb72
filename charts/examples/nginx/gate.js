// What auth_request goes by: 204 lets through, 403 refuses, 500 cannot tell.
async function entitled(r) {
    const customer = r.headersIn["X-Customer"] || "";
    if (!/^[A-Za-z0-9_]+$/.test(customer)) {
        r.return(403);
        return;
    }
    try {
        const answer = await ngx.fetch(`http://127.0.0.1:7420/v1/customers/${customer}/entitlements/reports`);
        const decision = answer.status === 200 ? await answer.json() : null;
        r.return(decision === null ? 500 : decision.entitled === true ? 204 : 403);
    } catch (error) {
        r.error(`the sidecar does not answer: ${error}`);
        r.return(500);
    }
}

export default { entitled };
